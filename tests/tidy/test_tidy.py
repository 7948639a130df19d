#!/usr/bin/env -S python3 -B
"""The checks themselves: each finds the fault it is there for, and leaves good code alone."""

import tempfile
import unittest
from pathlib import Path

import claims
import layering
import permissions
import sources
import style

PROFILE = """// policy/worker.h: rows.
inline constexpr SyscallRule kRows[] = {
    {SYS_read, {arg_is(0, 5)}, "worker/engine.cpp: wait"},
};
inline constexpr std::uint8_t kWorkerOpcodes[] = {
    IORING_OP_READ,  // Kick; worker/engine.cpp: wait
};
"""
ENGINE = """// worker/engine.cpp: an engine.
// syscalls: read
void Engine::wait() noexcept { use(IORING_OP_READ); }
"""


class TreeTest(unittest.TestCase):
    def setUp(self):
        self._directory = tempfile.TemporaryDirectory()
        self.addCleanup(self._directory.cleanup)
        self.root = Path(self._directory.name)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def assert_finds(self, check, *parts: str) -> None:
        problems = check(self.root)
        self.assertTrue(any(all(part in problem for part in parts) for problem in problems),
                        f"{parts} not in {problems}")

    def assert_clean(self, check) -> None:
        self.assertEqual(check(self.root), [])


class ClaimsTest(TreeTest):
    def claim(self, proof: str) -> None:
        self.write("policy/README.md", "# M\n\n## Claims\n\n| claim | proof |\n|---|---|\n"
                   f"| It holds | {proof} |\n\n## Else\n\n| a | `Not.There` |\n")
        self.write("tests/unit/a_test.cpp",
                   'TEST_P(Suite, Holds) {}\nconst char* kNames = "OneCase";\n')
        self.write("tests/unit/CMakeLists.txt", "add_test(NAME escape.all_is_used COMMAND x)\n")

    def test_accepts_what_there_is(self):
        self.claim("`Suite.Holds`, `Suite.*`, `Sui*`, `Suite` `OneCase`, `Holds`, `tests/unit`, "
                   "`escape.all_is_used`, `tests/unit/a_test.cpp --fast`")
        self.assert_clean(claims.check_claims)

    def test_finds_a_test_that_is_gone(self):
        for name in ("Suite.Held", "Suit.*", "Suits", "tests/escape", "escape.nothing_is_used"):
            self.claim(f"`{name}`")
            self.assert_finds(claims.check_claims, name, "It holds")

    def test_finds_a_claim_without_a_test(self):
        self.claim("believe us")
        self.assert_finds(claims.check_claims, "no test is named")


class LayeringTest(TreeTest):
    def test_accepts_what_the_design_allows(self):
        self.write("common/fd.h", "")
        self.write("policy/jail.h", '#include "common/fd.h"\n')
        self.write("worker/a.h", "")
        self.write("worker/a.cpp", '#include "worker/a.h"\n#include "policy/jail.h"\n')
        self.write("broker/session/b.cpp", '#include "common/fd.h"\n')
        self.assert_clean(layering.check_layering)

    def test_refuses_the_broker_in_the_session_and_back(self):
        self.write("broker/log.h", '#include "broker/session/vring.h"\n')
        self.write("broker/session/vring.h", '#include "broker/log.h"\n')
        self.assert_finds(layering.check_layering, "broker/log.h", "may not include")
        self.assert_finds(layering.check_layering, "broker/session/vring.h", "may not include")

    def test_refuses_the_worker_in_common(self):
        self.write("worker/ring.h", "")
        self.write("common/x.cpp", '#include "worker/ring.h"\n')
        self.assert_finds(layering.check_layering, "common/x.cpp")

    def test_refuses_tests_in_the_product(self):
        self.write("tests/fakes/f.h", "")
        self.write("worker/x.cpp", '#include "tests/fakes/f.h"\n')
        self.assert_finds(layering.check_layering, "worker/x.cpp")

    def test_refuses_a_path_that_is_not_from_the_root(self):
        self.write("worker/ring.h", "")
        self.write("worker/x.cpp", '#include "ring.h"\n')
        self.assert_finds(layering.check_layering, "from the root")

    def test_refuses_a_library_outside_its_file(self):
        self.write("policy/seccomp.cpp", "#include <seccomp.h>\n")
        self.assert_clean(layering.check_libraries)
        self.write("broker/main.cpp", "#include <seccomp.h>\n#include <expected>\n")
        self.write("worker/x.cpp", "#include <liburing.h>\nstd::expected<int, int> f();\n")
        self.assert_finds(layering.check_libraries, "broker/main.cpp", "seccomp.h")
        self.assert_finds(layering.check_libraries, "broker/main.cpp", "expected")
        self.assert_finds(layering.check_libraries, "worker/x.cpp", "liburing.h")
        self.assert_finds(layering.check_libraries, "worker/x.cpp", "std::expected")

    def test_wants_its_own_header_first(self):
        self.write("worker/a.h", "")
        self.write("worker/a.cpp", '#include <vector>\n#include "worker/a.h"\n')
        self.assert_finds(layering.check_first_include, "worker/a.h")


class PermissionsTest(TreeTest):
    def setUp(self):
        super().setUp()
        self.write("policy/worker.h", PROFILE)
        self.write("worker/engine.cpp", ENGINE)

    def test_accepts_a_table_that_fits_the_code(self):
        self.assert_clean(permissions.check_permissions)
        self.assert_clean(permissions.check_opcodes)

    def test_finds_a_row_whose_file_is_gone(self):
        (self.root / "worker/engine.cpp").unlink()
        self.assert_finds(permissions.check_permissions, "read", "does not exist")
        self.assert_finds(permissions.check_opcodes, "IORING_OP_READ", "does not exist")

    def test_finds_a_row_whose_function_is_gone(self):
        self.write("worker/engine.cpp", ENGINE.replace("wait", "sleep"))
        self.assert_finds(permissions.check_permissions, "no such function")

    def test_finds_a_row_that_nothing_uses(self):
        self.write("worker/engine.cpp", ENGINE.replace("// syscalls: read\n", ""))
        self.assert_finds(permissions.check_permissions, "which has no '// syscalls: read'")

    def test_finds_a_use_without_a_row(self):
        self.write("worker/engine.cpp", ENGINE.replace("syscalls: read", "syscalls: read, openat"))
        self.assert_finds(permissions.check_permissions, "openat", "no profile grants it")

    def test_finds_a_row_without_a_reason(self):
        self.write("policy/worker.h", PROFILE.replace('"worker/engine.cpp: wait"', '""'))
        self.assert_finds(permissions.check_permissions, "is not 'file: function'")
        self.write("policy/worker.h", PROFILE.replace(', "worker/engine.cpp: wait"', ""))
        self.assert_finds(permissions.check_permissions, "does not say who needs it")

    def test_finds_a_ring_operation_without_a_row_and_back(self):
        self.write("worker/engine.cpp", ENGINE.replace("IORING_OP_READ", "IORING_OP_OPENAT"))
        self.assert_finds(permissions.check_opcodes, "does not use it")
        self.assert_finds(permissions.check_opcodes, "IORING_OP_OPENAT", "no list grants")


class StyleTest(TreeTest):
    def test_finds_what_is_too_long(self):
        self.write("common/a.h", "//" + "x" * 99 + "\n")
        self.assert_finds(style.check_columns, "101 columns")
        self.write("common/a.h", "int x;\n" * 501)
        self.assert_finds(style.check_file_length, "501 lines")
        self.write("common/a.h", "// Long because it is one table.\n" + "int x;\n" * 501)
        self.assert_clean(style.check_file_length)
        body = "  step();\n" * 68
        self.write("common/a.cpp", "void f() {\n" + body + "}\n")
        self.assert_clean(style.check_function_length)
        self.write("common/a.cpp", "void f() {\n" + body + "  step();\n}\n")
        self.assert_finds(style.check_function_length, "f() has 71 lines")

    def test_finds_leftovers_and_paths_of_a_machine(self):
        self.write("README.md", "a TO" + "DO\n")
        self.assert_finds(style.check_leftovers, "unfinished")
        self.write("README.md", "see /wo" + "rk/main\n")
        self.assert_finds(style.check_leftovers, "a machine's path")
        self.write("README.md", "$HOME/work/x and /var/lib and tests/work/x\n")
        self.assert_clean(style.check_leftovers)

    def test_wants_the_four_headings_of_a_jailed_main(self):
        three = "// May: a\n// Must never: b\n// Trusts: c\n"
        self.write("worker/blk_main.cpp", three + "int main() {}\n// Stages: too late\n")
        self.assert_finds(style.check_mains, "lacks 'Stages'")
        self.write("worker/blk_main.cpp", three + "// Stages: 1. jail\nint main() {}\n")
        self.assert_clean(style.check_mains)


class FunctionsTest(unittest.TestCase):
    def names(self, text: str) -> list:
        return [function.name for function in sources.functions(text)]

    def test_finds_functions_members_and_tests(self):
        text = """namespace a {
[[nodiscard]] common::Result<void, Error> start(int x) noexcept(true) {
  if (x) { return {}; }
  auto lambda = [](int y) { return y; };
}
struct S { int get() const { return 1; } ~S() {} };
Queue::Queue(int a) : a_{a}, b_(2) { run(); }
TEST(Ring, RefusesBadIndex) { EXPECT_EQ(1, 1); }
}  // namespace a
"""
        self.assertEqual(self.names(text),
                         ["start", "get", "~S", "Queue", "TEST"])

    def test_is_not_fooled_by_literals_and_macros(self):
        text = ('#define OPEN {\nconst char* k = "}{"; char c = \'{\'; // }\n'
                'int big = 1\'000;\nvoid f() { g(R"x({{)x"); }\n')
        self.assertEqual(self.names(text), ["f"])

    def test_leaves_tables_alone(self):
        self.assertEqual(self.names("inline constexpr Row kRows[] = {\n {1, f(2)},\n};\n"), [])


if __name__ == "__main__":
    unittest.main()
