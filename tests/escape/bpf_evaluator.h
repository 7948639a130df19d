// tests/escape/bpf_evaluator.h: runs a seccomp filter as the kernel would, on made-up system calls.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "common/ipc/jail_order.h"

namespace escape {

// What the filter returns for this call; nothing if the program is one that the kernel would refuse
// (runs off its end, loads outside seccomp_data, uses what seccomp filters may not).
[[nodiscard]] inline std::optional<std::uint32_t> evaluate(
    std::span<const common::ipc::FilterInstruction> program, const seccomp_data& data) {
  std::uint32_t accumulator = 0;
  std::uint32_t index = 0;
  std::uint32_t memory[BPF_MEMWORDS] = {};
  for (std::size_t at = 0; at < program.size(); ++at) {
    const auto& [code, jump_true, jump_false, operand] = program[at];
    const auto jump = [&](bool taken) { at += taken ? jump_true : jump_false; };
    switch (code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (operand % 4 != 0 || operand > sizeof(data) - 4) return std::nullopt;
        std::memcpy(&accumulator, reinterpret_cast<const char*>(&data) + operand, 4);
        break;
      case BPF_LD | BPF_IMM:
        accumulator = operand;
        break;
      case BPF_LD | BPF_MEM:
        if (operand >= BPF_MEMWORDS) return std::nullopt;
        accumulator = memory[operand];
        break;
      case BPF_ST:
        if (operand >= BPF_MEMWORDS) return std::nullopt;
        memory[operand] = accumulator;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= operand;
        break;
      case BPF_MISC | BPF_TAX:
        index = accumulator;
        break;
      case BPF_MISC | BPF_TXA:
        accumulator = index;
        break;
      case BPF_JMP | BPF_JA:
        at += operand;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        jump(accumulator == operand);
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        jump(accumulator > operand);
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        jump(accumulator >= operand);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        jump((accumulator & operand) != 0);
        break;
      case BPF_RET | BPF_K:
        return operand;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace escape
