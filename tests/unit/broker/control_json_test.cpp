#include "broker/control/json.h"

#include <gtest/gtest.h>

namespace broker::control {
namespace {

TEST(Json, BeginsWithItsSchema) {
  EXPECT_EQ(Json("list").finish(), "{\"schema\":\"bulkhead/1\",\"command\":\"list\"}\n");
}

TEST(Json, NestsObjectsAndArrays) {
  Json json("x");
  json.array("a").object().number("n", 1).end().object().flag("f", false).end().end();
  json.real("r", 0.5);
  EXPECT_EQ(json.finish(),
            "{\"schema\":\"bulkhead/"
            "1\",\"command\":\"x\",\"a\":[{\"n\":1},{\"f\":false}],\"r\":0.500}\n");
}

TEST(Json, EscapesWhatWouldEndAString) {
  Json json("x");
  json.text("k\"", "a\"b\\c\n\xff");
  EXPECT_EQ(
      json.finish(),
      "{\"schema\":\"bulkhead/1\",\"command\":\"x\",\"k\\\"\":\"a\\\"b\\\\c\\\\x0a\\\\xff\"}\n");
}

}  // namespace
}  // namespace broker::control
