// Toml: the files of configs/clusters and configs/models, and what probe keeps: read strictly, with
// the line of everything, and written. Knows no key.
//   Read: comments, [tables], [[arrays of tables]], keys of letters, digits, _ and -, and as values
//   texts in double quotes, whole numbers, numbers with a point or an exponent, true and false, and
//   lists of them over any number of lines. What TOML 1.0 has beyond that (dates, inline tables,
//   dotted keys, texts of several lines) is an Error that says so. Format: toml.io/en/v1.0.0.
//   Thread: pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spillway {

struct TomlValue {
  enum class Kind { kText, kInteger, kNumber, kFlag, kList };
  Kind kind = Kind::kInteger;
  int line = 0;
  std::string text;
  int64_t integer = 0;
  double number = 0;  // of an integer too
  bool flag = false;
  std::vector<TomlValue> list;  // no lists in lists
};

struct TomlTable {
  std::string name;  // "ranks.gpu"; "" for the file itself
  int line = 1;
  bool element = false;                                   // of an array of tables
  std::vector<std::pair<std::string, TomlValue>> values;  // in the file's order
  std::vector<TomlTable> tables;                          // likewise
};

// Throws Error with `path` and the line. Texts may hold any bytes.
TomlTable parse_toml(std::string_view text, const std::string& path);
// Reads a file of at most 1 MiB.
TomlTable read_toml(const std::string& path);

// Takes a table's keys one by one into variables, which keep their value when the key is missing
// and not needed. Every number must be at least its `least`.
class TomlFields {
 public:
  enum Need { kOptional, kNeeded };
  // The table may be nullptr: it has no keys then.
  TomlFields(const TomlTable* table, std::string path);

  void text(const char* key, std::string& out, Need need = kOptional);
  void flag(const char* key, bool& out, Need need = kOptional);
  void integer(const char* key, int64_t& out, int64_t least = 0, Need need = kOptional);
  void integer(const char* key, int& out, int64_t least = 0, Need need = kOptional);
  void number(const char* key, double& out, Need need = kOptional);  // at least 0
  void integers(const char* key, std::vector<int64_t>& out, int64_t least = 0);
  void numbers(const char* key, std::vector<double>& out);
  void texts(const char* key, std::vector<std::string>& out);
  // Child tables of this name; `array` when there may be several.
  std::vector<const TomlTable*> tables(const char* name, bool array);

  // Throws Error when the table has something that was not asked for: the nearest that was.
  void finish() const;
  // Throws Error at the key's line, or at the table's when it is not there.
  [[noreturn]] void fail(const std::string& what, const char* key = "") const;

 private:
  const TomlValue* take(const char* key, TomlValue::Kind kind, Need need);
  [[noreturn]] void fail_at(int line, const std::string& what, const std::string& todo = "") const;
  std::string name_of(const std::string& key) const;
  double number_of(const char* key, const TomlValue& value) const;
  int64_t integer_of(const char* key, const TomlValue& value, int64_t least) const;

  const TomlTable* table_;
  std::string path_;
  std::vector<std::string> known_;
};

// A file, line by line. Numbers are written so that reading gives the same bits.
class TomlText {
 public:
  void comment(const std::string& text);
  void table(const std::string& name);    // [name]
  void element(const std::string& name);  // [[name]]
  void text(const char* key, const std::string& value);
  void flag(const char* key, bool value);
  void integer(const char* key, int64_t value);
  void number(const char* key, double value);
  void integers(const char* key, const std::vector<int64_t>& values);
  void numbers(const char* key, const std::vector<double>& values);
  void texts(const char* key, const std::vector<std::string>& values);
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

}  // namespace spillway
