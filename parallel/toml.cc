// See toml.h. The parser; toml_fields.cc takes what it made apart and writes.
#include "parallel/toml.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>

#include "kernels/core/error.h"

namespace spillway {
namespace {

constexpr int64_t kMostBytes = 1 << 20;
constexpr size_t kDeepest = 4;  // names in a table's name
// Names are compared one by one: so many keys in a table, and tables in one.
constexpr size_t kMostKeys = 1 << 10;
constexpr size_t kMostTables = 1 << 14;

bool is_key(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  TomlTable parse() {
    while (skip_to_content()) {
      if (peek() == '[') {
        header();
      } else {
        entry();
      }
      end_of_line();
    }
    return std::move(root_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& todo = "") const {
    throw Error(what, path_ + ", line " + std::to_string(line_), todo);
  }

  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_blanks() {
    while (peek() == ' ' || peek() == '\t') ++at_;
  }
  void skip_comment() {
    if (peek() != '#') return;
    while (!done() && peek() != '\n') ++at_;
  }
  bool skip_newline() {
    if (text_.substr(at_).starts_with("\r\n")) ++at_;
    if (!take('\n')) return false;
    ++line_;
    return true;
  }
  // Past blanks, comments and line ends; whether anything follows.
  bool skip_to_content() {
    do {
      skip_blanks();
      skip_comment();
    } while (skip_newline());
    return !done();
  }
  void end_of_line() {
    skip_blanks();
    skip_comment();
    if (!done() && !skip_newline()) fail("something follows that does not belong to this line");
  }

  std::string key() {
    skip_blanks();
    const size_t begin = at_;
    while (is_key(peek())) ++at_;
    if (begin == at_) fail("a key of letters, digits, _ and - is missing");
    std::string name(text_.substr(begin, at_ - begin));
    skip_blanks();
    return name;
  }

  // [a.b] is a table of the last a; [[a.b]] one more of its tables b.
  void header() {
    take('[');
    const bool element = take('[');
    TomlTable* parent = &root_;
    std::string full;
    for (size_t depth = 0;; ++depth) {
      if (depth == kDeepest) fail("tables lie deeper than " + std::to_string(kDeepest));
      const std::string name = key();
      full += (full.empty() ? "" : ".") + name;
      if (!take('.')) break;
      parent = child(*parent, full);
      if (parent == nullptr) fail("[" + full + "] is not there yet");
    }
    if (!take(']') || (element && !take(']'))) fail("the table's name does not end with ]");
    const TomlTable* other = child(*parent, full);
    if (other != nullptr && !(element && other->element)) {
      fail("[" + full + "] is there twice, first in line " + std::to_string(other->line));
    }
    if (parent->tables.size() == kMostTables) {
      fail("there are more than " + std::to_string(kMostTables) + " tables");
    }
    parent->tables.push_back({full, line_, element, {}, {}});
    current_ = &parent->tables.back();
  }

  static TomlTable* child(TomlTable& parent, const std::string& name) {
    const auto found = std::find_if(parent.tables.rbegin(), parent.tables.rend(),
                                    [&](const TomlTable& table) { return table.name == name; });
    return found == parent.tables.rend() ? nullptr : &*found;
  }

  void entry() {
    const std::string name = key();
    if (peek() == '.') fail("dotted keys are not read here", "write a [table]");
    if (!take('=')) fail("= is missing after " + name);
    skip_blanks();
    for (const auto& [other, value] : current_->values) {
      if (other == name) {
        fail(name + " is there twice, first in line " + std::to_string(value.line));
      }
    }
    if (current_->values.size() == kMostKeys) {
      fail("a table has more than " + std::to_string(kMostKeys) + " keys");
    }
    TomlValue value = this->value(true);
    current_->values.emplace_back(name, std::move(value));
  }

  TomlValue value(bool lists) {
    const char c = peek();
    if (c == '"') return text();
    if (c == '[' && lists) return list();
    if (c == '[') fail("lists in lists are not read here");
    if (c == '{') fail("tables in a line are not read here", "write a [table]");
    if (c == '\'') fail("a text stands in double quotes here");
    return word();
  }

  TomlValue list() {
    TomlValue out;
    out.kind = TomlValue::Kind::kList;
    out.line = line_;
    take('[');
    while (true) {
      if (!skip_to_content()) fail("the list does not end with ]");
      if (take(']')) return out;
      out.list.push_back(value(false));
      if (!skip_to_content()) fail("the list does not end with ]");
      if (take(']')) return out;
      if (!take(',')) fail("a comma is missing in the list");
    }
  }

  TomlValue text() {
    TomlValue out;
    out.kind = TomlValue::Kind::kText;
    out.line = line_;
    take('"');
    while (!take('"')) {
      if (done() || peek() == '\n') fail("the text does not end with \"");
      char c = text_[at_++];
      if (c == '\\') c = escaped(out.text);
      if (c != '\0') out.text += c;
    }
    return out;
  }

  // What a backslash stands for; \u is put into the text itself, as UTF-8, with '\0' returned.
  char escaped(std::string& out) {
    const char c = peek();
    ++at_;
    switch (c) {
      case '"':
      case '\\':
        return c;
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'u':
        break;
      default:
        fail("the text has a backslash before none of \" \\ n t r u");
    }
    uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || result.ptr != digits.data() + 4 ||
        (code >= 0xD800 && code < 0xE000)) {
      fail("\\u needs the four digits of a character");
    }
    at_ += 4;
    if (code == 0) fail("the text holds a zero");
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xC0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      out += static_cast<char>(0xE0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    }
    return '\0';
  }

  // true, false and numbers.
  TomlValue word() {
    TomlValue out;
    out.line = line_;
    const size_t begin = at_;
    while (is_key(peek()) || peek() == '.' || peek() == '+') ++at_;
    std::string word(text_.substr(begin, at_ - begin));
    if (word == "true" || word == "false") {
      out.kind = TomlValue::Kind::kFlag;
      out.flag = word == "true";
      return out;
    }
    std::erase(word, '_');  // 24_000_000_000
    const std::string_view digits = std::string_view(word).substr(word.starts_with('+') ? 1 : 0);
    const char* end = digits.data() + digits.size();
    const auto whole = std::from_chars(digits.data(), end, out.integer);
    if (whole.ec == std::errc() && whole.ptr == end) {
      out.number = static_cast<double>(out.integer);
      return out;
    }
    const auto real = std::from_chars(digits.data(), end, out.number);
    if (word.empty() || real.ec != std::errc() || real.ptr != end || !std::isfinite(out.number)) {
      fail("\"" + word.substr(0, 40) +
           "\" is no value: a \"text\", a number, true, false or a [list]");
    }
    out.kind = TomlValue::Kind::kNumber;
    return out;
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
  int line_ = 1;
  TomlTable root_;
  // Of root_ or a table in it: no sibling is added before the next header sets it again.
  TomlTable* current_ = &root_;
};

}  // namespace

TomlTable parse_toml(std::string_view text, const std::string& path) {
  return Parser(text, path).parse();
}

TomlTable read_toml(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot be opened", path);
  std::string text(static_cast<size_t>(kMostBytes) + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (!file.eof() && file.fail())) throw Error("cannot be read", path);
  text.resize(static_cast<size_t>(file.gcount()));
  if (static_cast<int64_t>(text.size()) > kMostBytes) {
    throw Error("is larger than the " + std::to_string(kMostBytes) + " bytes that are read", path);
  }
  return parse_toml(text, path);
}

}  // namespace spillway
