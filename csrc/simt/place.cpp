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

bool belongs_to_emulator(const char* path) {
  return strstr(path, "/simt/") || strstr(path, "/dl.cuh") || strncmp(path, "/usr/", 5) == 0 || path[0] == '?';
}

std::string base_name(const std::string& line) {  // "/a/b.cu:12 (discriminator 3)" -> "b.cu:12"
  std::string text = line.substr(0, line.find_first_of(" \n"));
  return text.substr(text.rfind('/') + 1);
}

std::string look_up(uintptr_t pc) {
  Dl_info image;
  if (!dladdr(reinterpret_cast<void*>(pc), &image) || !image.dli_fname) return "an unknown place";
  char command[1024], line[1024];
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%lx 2>/dev/null", image.dli_fname,
           static_cast<unsigned long>(pc - 1 - reinterpret_cast<uintptr_t>(image.dli_fbase)));
  FILE* output = popen(command, "r");
  std::string own, first;
  while (output && fgets(line, sizeof line, output)) {
    if (first.empty()) first = base_name(line);
    if (own.empty() && !belongs_to_emulator(line)) own = base_name(line);
  }
  if (output) pclose(output);
  return !own.empty() ? own : !first.empty() ? first : "an unknown place";
}

}  // namespace

std::string place(const void* pc) {
  char text[32];
  snprintf(text, sizeof text, "%c%lx%c", kMark, reinterpret_cast<unsigned long>(pc), kMark);
  return text;
}

std::string resolve_places(const std::string& message) {
  static std::map<uintptr_t, std::string> known;
  std::string result;
  for (size_t at = 0; at < message.size();) {
    size_t mark = message.find(kMark, at), end = message.find(kMark, mark + 1);
    result += message.substr(at, mark - at);
    if (mark == std::string::npos || end == std::string::npos) break;
    uintptr_t pc = strtoull(message.c_str() + mark + 1, nullptr, 16);
    if (!known.count(pc)) known[pc] = look_up(pc);
    result += known[pc];
    at = end + 1;
  }
  return result;
}

}  // namespace simt
