// See toml.h: a table's keys into variables, and a file out of them.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/near_word.h"
#include "parallel/toml.h"

namespace spillway {
namespace {

const char* kind_name(TomlValue::Kind kind) {
  switch (kind) {
    case TomlValue::Kind::kText:
      return "a text";
    case TomlValue::Kind::kInteger:
      return "a whole number";
    case TomlValue::Kind::kNumber:
      return "a number";
    case TomlValue::Kind::kFlag:
      return "true or false";
    case TomlValue::Kind::kList:
      return "a list";
  }
  return "";
}

// 5 as "5.0", so that it is read as the number that it is.
std::string number_text(double value) {
  CHECK(std::isfinite(value));
  std::array<char, 32> buffer{};
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string out(buffer.data(), result.ptr);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += std::string("\\") + c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04X", static_cast<unsigned char>(c));
      out += code.data();
    } else {
      out += c;
    }
  }
  return out + "\"";
}

template <typename T, typename Text>
std::string list_text(const std::vector<T>& values, const Text& text_of) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); ++i) out += (i > 0 ? ", " : "") + text_of(values[i]);
  return out + "]";
}

}  // namespace

TomlFields::TomlFields(const TomlTable* table, std::string path)
    : table_(table), path_(std::move(path)) {}

std::string TomlFields::name_of(const std::string& key) const {
  return table_ == nullptr || table_->name.empty() ? key : table_->name + "." + key;
}

void TomlFields::fail_at(int line, const std::string& what, const std::string& todo) const {
  throw Error(what, path_ + ", line " + std::to_string(line), todo);
}

void TomlFields::fail(const std::string& what, const char* key) const {
  int line = table_ == nullptr ? 1 : table_->line;
  if (table_ != nullptr) {
    for (const auto& [name, value] : table_->values) {
      if (name == key) line = value.line;
    }
  }
  fail_at(line, what);
}

const TomlValue* TomlFields::take(const char* key, TomlValue::Kind kind, Need need) {
  known_.emplace_back(key);
  if (table_ != nullptr) {
    for (const auto& [name, value] : table_->values) {
      if (name != key) continue;
      const bool widened =
          kind == TomlValue::Kind::kNumber && value.kind == TomlValue::Kind::kInteger;
      if (value.kind != kind && !widened) {
        fail_at(value.line,
                name_of(key) + " must be " + kind_name(kind) + ", it is " + kind_name(value.kind));
      }
      return &value;
    }
  }
  if (need == kNeeded) fail(name_of(key) + " is missing");
  return nullptr;
}

double TomlFields::number_of(const char* key, const TomlValue& value) const {
  if (value.kind != TomlValue::Kind::kNumber && value.kind != TomlValue::Kind::kInteger) {
    fail_at(value.line, name_of(key) + " must hold numbers, not " + kind_name(value.kind));
  }
  if (value.number < 0) {
    fail_at(value.line, name_of(key) + " is " + number_text(value.number) + ", below 0");
  }
  return value.number;
}

int64_t TomlFields::integer_of(const char* key, const TomlValue& value, int64_t least) const {
  if (value.kind != TomlValue::Kind::kInteger) {
    fail_at(value.line, name_of(key) + " must hold whole numbers, not " + kind_name(value.kind));
  }
  if (value.integer < least) {
    fail_at(value.line, name_of(key) + " is " + std::to_string(value.integer) + ", below " +
                            std::to_string(least));
  }
  return value.integer;
}

void TomlFields::text(const char* key, std::string& out, Need need) {
  if (const TomlValue* value = take(key, TomlValue::Kind::kText, need)) out = value->text;
}

void TomlFields::flag(const char* key, bool& out, Need need) {
  if (const TomlValue* value = take(key, TomlValue::Kind::kFlag, need)) out = value->flag;
}

void TomlFields::integer(const char* key, int64_t& out, int64_t least, Need need) {
  if (const TomlValue* value = take(key, TomlValue::Kind::kInteger, need)) {
    out = integer_of(key, *value, least);
  }
}

void TomlFields::integer(const char* key, int& out, int64_t least, Need need) {
  int64_t wide = out;
  integer(key, wide, least, need);
  if (wide > std::numeric_limits<int>::max()) {
    fail(name_of(key) + " is " + std::to_string(wide) + ", beyond 2147483647", key);
  }
  out = static_cast<int>(wide);
}

void TomlFields::number(const char* key, double& out, Need need) {
  if (const TomlValue* value = take(key, TomlValue::Kind::kNumber, need)) {
    out = number_of(key, *value);
  }
}

void TomlFields::integers(const char* key, std::vector<int64_t>& out, int64_t least) {
  const TomlValue* value = take(key, TomlValue::Kind::kList, kOptional);
  if (value == nullptr) return;
  out.clear();
  for (const TomlValue& element : value->list) out.push_back(integer_of(key, element, least));
}

void TomlFields::numbers(const char* key, std::vector<double>& out) {
  const TomlValue* value = take(key, TomlValue::Kind::kList, kOptional);
  if (value == nullptr) return;
  out.clear();
  for (const TomlValue& element : value->list) out.push_back(number_of(key, element));
}

void TomlFields::texts(const char* key, std::vector<std::string>& out) {
  const TomlValue* value = take(key, TomlValue::Kind::kList, kOptional);
  if (value == nullptr) return;
  out.clear();
  for (const TomlValue& element : value->list) {
    if (element.kind != TomlValue::Kind::kText) {
      fail_at(element.line, name_of(key) + " must hold texts, not " + kind_name(element.kind));
    }
    out.push_back(element.text);
  }
}

std::vector<const TomlTable*> TomlFields::tables(const char* name, bool array) {
  known_.emplace_back(name);
  std::vector<const TomlTable*> found;
  if (table_ == nullptr) return found;
  const std::string full = name_of(name);
  for (const TomlTable& table : table_->tables) {
    if (table.name != full) continue;
    if (table.element != array) {
      fail_at(table.line, array ? "[" + full + "] must be [[" + full + "]]: there may be several"
                                : "[[" + full + "]] must be [" + full + "]: there is one");
    }
    found.push_back(&table);
  }
  return found;
}

void TomlFields::finish() const {
  if (table_ == nullptr) return;
  const auto check = [&](const std::string& key, const std::string& shown, int line) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) return;
    const std::string near = near_word(key, known_);
    std::string all;
    for (const std::string& known : known_) all += (all.empty() ? "" : ", ") + known;
    fail_at(line, shown + " is not known here",
            near.empty() ? "known are " + all : "did you mean " + near + "?");
  };
  for (const auto& [key, value] : table_->values) check(key, name_of(key), value.line);
  for (const TomlTable& table : table_->tables) {
    const size_t dot = table.name.rfind('.');
    check(table.name.substr(dot == std::string::npos ? 0 : dot + 1), "[" + table.name + "]",
          table.line);
  }
}

void TomlText::comment(const std::string& text) { out_ += "# " + text + "\n"; }

void TomlText::table(const std::string& name) {
  out_ += (out_.empty() ? "[" : "\n[") + name + "]\n";
}

void TomlText::element(const std::string& name) {
  out_ += (out_.empty() ? "[[" : "\n[[") + name + "]]\n";
}

void TomlText::text(const char* key, const std::string& value) {
  out_ += std::string(key) + " = " + quoted(value) + "\n";
}

void TomlText::flag(const char* key, bool value) {
  out_ += std::string(key) + (value ? " = true\n" : " = false\n");
}

void TomlText::integer(const char* key, int64_t value) {
  out_ += std::string(key) + " = " + std::to_string(value) + "\n";
}

void TomlText::number(const char* key, double value) {
  out_ += std::string(key) + " = " + number_text(value) + "\n";
}

void TomlText::integers(const char* key, const std::vector<int64_t>& values) {
  out_ += std::string(key) + " = " +
          list_text(values, [](int64_t value) { return std::to_string(value); }) + "\n";
}

void TomlText::numbers(const char* key, const std::vector<double>& values) {
  out_ += std::string(key) + " = " + list_text(values, number_text) + "\n";
}

void TomlText::texts(const char* key, const std::vector<std::string>& values) {
  out_ += std::string(key) + " = " + list_text(values, quoted) + "\n";
}

}  // namespace spillway
