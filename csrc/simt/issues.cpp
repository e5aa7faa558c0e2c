// What went wrong in the last launch.
#include <map>
#include <tuple>

#include "check.h"

namespace simt {

namespace {

const char* const kNames[] = {"out-of-bounds", "misaligned", "shared-race", "global-race", "uninitialised", "async",
                              "barrier",       "warp",       "arithmetic",  "stack",       "time",          "trap"};
constexpr size_t kMost = 100;  // of different issues that are kept

struct Issue {
  Kind kind;
  std::string kernel, where, text;
  uint3 block, thread;
  size_t count;
};
std::vector<Issue> issues;
std::map<std::tuple<Kind, const void*, const void*>, size_t> known;

std::string triple(const uint3& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

}  // namespace

void add_issue(Kind kind, const void* pc, const void* other_pc, const std::string& text) {
  auto [position, added] = known.emplace(std::make_tuple(kind, pc, other_pc), issues.size());
  if (!added) ++issues[position->second].count;
  else if (issues.size() < kMost)
    issues.push_back({kind, machine.launch->kernel->name, pc ? place(pc) : "", text, blockIdx, threadIdx, 1});
  else known.erase(position);
}

void forget_issues() {
  issues.clear();
  known.clear();
}

std::string finish_issues() {
  for (Issue& issue : issues) issue.where = resolve_places(issue.where), issue.text = resolve_places(issue.text);
  if (issues.empty()) return "";
  const Issue& first = issues[0];
  return describe_launch() + ": block " + triple(first.block) + " thread " + triple(first.thread) +
         (first.where.empty() ? "" : " at " + first.where) + ": " + first.text +
         (issues.size() > 1 ? " (and " + std::to_string(issues.size() - 1) + " more)" : "");
}

std::string list_issues() {
  std::string lines;
  for (const Issue& i : issues)
    lines += std::string(kNames[static_cast<int>(i.kind)]) + "\t" + i.kernel + "\t" + i.where + "\t" + triple(i.block) +
             "\t" + triple(i.thread) + "\t" + std::to_string(i.count) + "\t" + i.text + "\n";
  return lines;
}

}  // namespace simt
