// Source lines of code addresses, by addr2line (part of binutils, as are the assembler and linker of g++).
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>

#include "machine.h"

namespace simt {

namespace {

constexpr char kMark = '\1';
const char kUnknown[] = "an unknown place";

std::map<std::pair<std::string, uintptr_t>, std::string> known;  // by image and offset

bool belongs_to_emulator(const char* path) {
  return strstr(path, "/simt/") || strstr(path, "/sim/csrc/") || strstr(path, "/dl.cuh") ||
         strncmp(path, "/usr/", 5) == 0 || path[0] == '?';
}

std::string base_name(const std::string& line) {  // "/a/b.cu:12 (discriminator 3)" -> "b.cu:12"
  std::string text = line.substr(0, line.find_first_of(" \n"));
  return text.substr(text.rfind('/') + 1);
}

// Of inlined calls, the innermost that is not within the emulator's headers.
void read_answer(FILE* output, const std::string& image) {
  char line[1024];
  std::string* answer = nullptr;
  bool own = false;
  while (fgets(line, sizeof line, output)) {
    if (strncmp(line, "0x", 2) == 0) {  // the address that was asked for, plus one
      answer = &known[{image, strtoull(line, nullptr, 16) + 1}];
      *answer = kUnknown, own = false;
    } else if (answer && !own && line[0] != '?') {
      own = !belongs_to_emulator(line);
      if (own || *answer == kUnknown) *answer = base_name(line);
    }
  }
}

void ask(const std::string& image, const std::vector<uintptr_t>& offsets, size_t first, size_t last) {
  std::string command = "addr2line -a -i -e '" + image + "'";
  char address[32];
  for (size_t i = first; i < last; ++i) {
    snprintf(address, sizeof address, " 0x%lx", static_cast<unsigned long>(offsets[i] - 1));  // within the call
    command += address;
  }
  FILE* output = popen((command + " 2>/dev/null").c_str(), "r");
  if (!output) return;
  read_answer(output, image);
  pclose(output);
}

std::string line_of(uintptr_t pc) {
  Dl_info image;
  if (!dladdr(reinterpret_cast<void*>(pc), &image) || !image.dli_fname) return kUnknown;
  return source_line(image.dli_fname, pc - reinterpret_cast<uintptr_t>(image.dli_fbase));
}

}  // namespace

void look_up_lines(const std::string& image, const std::vector<uintptr_t>& offsets) {
  constexpr size_t kAtOnce = 1000;  // a command line has its limit
  std::vector<uintptr_t> unknown;
  for (uintptr_t offset : offsets)
    if (!known.count({image, offset})) unknown.push_back(offset);
  for (size_t i = 0; i < unknown.size(); i += kAtOnce) ask(image, unknown, i, std::min(i + kAtOnce, unknown.size()));
}

std::string source_line(const std::string& image, uintptr_t offset) {
  look_up_lines(image, {offset});
  auto found = known.find({image, offset});
  return found == known.end() ? kUnknown : found->second;
}

std::string place(const void* pc) {
  char text[32];
  snprintf(text, sizeof text, "%c%lx%c", kMark, reinterpret_cast<unsigned long>(pc), kMark);
  return text;
}

std::string resolve_places(const std::string& message) {
  std::string result;
  for (size_t at = 0; at < message.size();) {
    size_t mark = message.find(kMark, at), end = message.find(kMark, mark + 1);
    result += message.substr(at, mark - at);
    if (mark == std::string::npos || end == std::string::npos) break;
    result += line_of(strtoull(message.c_str() + mark + 1, nullptr, 16));
    at = end + 1;
  }
  return result;
}

}  // namespace simt
