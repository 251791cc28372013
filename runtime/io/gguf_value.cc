// GgufValue: decoding of metadata values from the mapped bytes that gguf_parser.cc has checked.
// See gguf.h.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "runtime/io/gguf.h"

namespace spillway {
namespace {

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// Calls visit(value) with the number of this type at `at`; false for strings, arrays and bools.
template <typename Visit>
bool visit_number(GgufValueType type, const std::byte* at, Visit visit) {
  switch (type) {
    case GgufValueType::kU8:
      return visit(load<uint8_t>(at)), true;
    case GgufValueType::kI8:
      return visit(load<int8_t>(at)), true;
    case GgufValueType::kU16:
      return visit(load<uint16_t>(at)), true;
    case GgufValueType::kI16:
      return visit(load<int16_t>(at)), true;
    case GgufValueType::kU32:
      return visit(load<uint32_t>(at)), true;
    case GgufValueType::kI32:
      return visit(load<int32_t>(at)), true;
    case GgufValueType::kU64:
      return visit(load<uint64_t>(at)), true;
    case GgufValueType::kI64:
      return visit(load<int64_t>(at)), true;
    case GgufValueType::kF32:
      return visit(load<float>(at)), true;
    case GgufValueType::kF64:
      return visit(load<double>(at)), true;
    case GgufValueType::kBool:
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return false;
  }
  return false;
}

// Bytes of a number or bool; 0 for strings and arrays.
int64_t width(GgufValueType type) {
  int64_t bytes = type == GgufValueType::kBool ? 1 : 0;
  alignas(8) static constexpr std::byte kZeros[8] = {};
  visit_number(type, kZeros, [&](auto value) { bytes = sizeof(value); });
  return bytes;
}

// The integer at `at` as a T, when it is an integer (or a bool, where those count) and fits.
template <typename T>
std::optional<T> integer(GgufValueType type, const std::byte* at, bool bools_too) {
  std::optional<T> result;
  if (type == GgufValueType::kBool) {
    if (bools_too) result = static_cast<T>(load<uint8_t>(at) != 0);
    return result;
  }
  visit_number(type, at, [&](auto value) {
    if constexpr (std::is_integral_v<decltype(value)>) {
      if (std::in_range<T>(value)) result = static_cast<T>(value);
    }
  });
  return result;
}

std::string number_text(GgufValueType type, const std::byte* at) {
  if (type == GgufValueType::kBool) return load<uint8_t>(at) != 0 ? "true" : "false";
  std::string text;
  visit_number(type, at, [&](auto value) {
    if constexpr (std::is_integral_v<decltype(value)>) {
      text = std::to_string(value);
    } else {
      char buffer[40];
      constexpr int kDigits = sizeof(value) == 4 ? 7 : 15;
      std::snprintf(buffer, sizeof(buffer), "%.*g", kDigits, static_cast<double>(value));
      text = buffer;
    }
  });
  return text;
}

// One encoded element; moves `at` past it.
std::string_view next_string(const std::byte*& at) {
  auto length = load<uint64_t>(at);
  std::string_view text(reinterpret_cast<const char*>(at + 8), length);
  at += 8 + length;
  return text;
}

}  // namespace

const char* gguf_value_type_name(GgufValueType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  auto number = static_cast<uint32_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

std::optional<uint64_t> GgufValue::as_uint() const {
  if (is_array() || bytes_.empty()) return std::nullopt;
  return integer<uint64_t>(type_, bytes_.data(), false);
}

std::optional<int64_t> GgufValue::as_int() const {
  if (is_array() || bytes_.empty()) return std::nullopt;
  return integer<int64_t>(type_, bytes_.data(), false);
}

std::optional<double> GgufValue::as_double() const {
  std::optional<double> result;
  if (is_array() || bytes_.empty()) return result;
  visit_number(type_, bytes_.data(), [&](auto value) { result = static_cast<double>(value); });
  return result;
}

std::optional<bool> GgufValue::as_bool() const {
  if (type_ != GgufValueType::kBool || bytes_.empty()) return std::nullopt;
  return load<uint8_t>(bytes_.data()) != 0;
}

std::optional<std::string_view> GgufValue::as_string() const {
  if (type_ != GgufValueType::kString) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
}

std::optional<std::vector<std::string_view>> GgufValue::as_strings() const {
  if (!is_array() || element_type_ != GgufValueType::kString) return std::nullopt;
  std::vector<std::string_view> texts;
  texts.reserve(size_);
  const std::byte* at = bytes_.data();
  for (int64_t i = 0; i < size_; ++i) texts.push_back(next_string(at));
  return texts;
}

std::optional<std::vector<double>> GgufValue::as_doubles() const {
  int64_t step = width(element_type_);
  if (!is_array() || step == 0 || element_type_ == GgufValueType::kBool) return std::nullopt;
  std::vector<double> values(size_);
  for (int64_t i = 0; i < size_; ++i) {
    visit_number(element_type_, bytes_.data() + i * step,
                 [&](auto value) { values[i] = static_cast<double>(value); });
  }
  return values;
}

std::optional<std::vector<int64_t>> GgufValue::as_ints() const {
  int64_t step = width(element_type_);
  if (!is_array() || step == 0) return std::nullopt;
  std::vector<int64_t> values(size_);
  for (int64_t i = 0; i < size_; ++i) {
    std::optional<int64_t> value = integer<int64_t>(element_type_, bytes_.data() + i * step, true);
    if (!value) return std::nullopt;
    values[i] = *value;
  }
  if (size_ == 0 && (element_type_ == GgufValueType::kF32 || element_type_ == GgufValueType::kF64))
    return std::nullopt;
  return values;
}

std::string GgufValue::to_text(int max_elements) const {
  if (type_ == GgufValueType::kString) return std::string(*as_string());
  if (!is_array()) return bytes_.empty() ? "" : number_text(type_, bytes_.data());
  int64_t shown = element_type_ == GgufValueType::kArray
                      ? 0
                      : std::min<int64_t>(size_, std::max(max_elements, 0));
  std::string text = "[";
  const std::byte* at = bytes_.data();
  for (int64_t i = 0; i < shown; ++i) {
    if (i > 0) text += ", ";
    if (element_type_ == GgufValueType::kString) {
      text += next_string(at);
    } else {
      text += number_text(element_type_, at);
      at += width(element_type_);
    }
  }
  if (shown == size_) return text + "]";
  if (shown > 0) text += ", … ";
  return text + std::to_string(size_) + " " + gguf_value_type_name(element_type_) +
         (size_ == 1 ? "]" : "s]");
}

}  // namespace spillway
