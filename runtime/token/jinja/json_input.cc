// Builds values straight from the JSON library's events, so that limits hold while reading and no
// second tree is made.
#include "runtime/token/jinja/json_input.h"

#include <nlohmann/json.hpp>

#include "kernels/core/error.h"

namespace spillway::jinja {
namespace {

// nlohmann's SAX interface; its names are given.
class Builder {
 public:
  Builder(Heap& heap, std::string_view what) : heap_(heap), what_(what) {}

  bool null() { return add(None{}); }
  bool boolean(bool b) { return add(b); }
  bool number_integer(int64_t i) { return add(i); }
  bool number_unsigned(uint64_t u) {
    const bool fits = u <= static_cast<uint64_t>(INT64_MAX);
    return add(fits ? Value(static_cast<int64_t>(u)) : Value(static_cast<double>(u)));
  }
  bool number_float(double d, const std::string&) { return add(d); }
  bool string(std::string& s) { return add(heap_.text(std::move(s))); }
  bool binary(std::vector<uint8_t>&) { return false; }
  bool start_object(size_t) { return open(heap_.dict()); }
  bool start_array(size_t) { return open(heap_.list()); }
  bool key(std::string& s) {
    keys_.back() = heap_.text(std::move(s));
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& e) {
    // The library's words carry its own name and an id: keep what follows the position.
    std::string reason = e.what();
    const size_t colon = reason.find(": ");
    if (colon != std::string::npos) reason.erase(0, colon + 2);
    throw Error(std::string(what_) + " is not JSON: " + reason, "byte " + std::to_string(position));
  }

  Value take() { return std::move(result_); }

 private:
  bool add(Value value) {
    heap_.step();
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is(Kind::kDict)) {
      heap_.set(open_.back().dict(), keys_.back(), std::move(value));
    } else {
      heap_.append(open_.back().list(), std::move(value));
    }
    return true;
  }

  bool open(Value container) {
    if (open_.size() >= kJsonNesting) {
      throw Error(std::string(what_) + " is nested deeper than " + std::to_string(kJsonNesting) +
                  " levels");
    }
    add(container);
    open_.push_back(std::move(container));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  Heap& heap_;
  std::string_view what_;
  Value result_;
  std::vector<Value> open_;
  std::vector<Value> keys_;
};

}  // namespace

Value read_json(Heap& heap, std::string_view what, std::string_view json) {
  Builder builder(heap, what);
  nlohmann::json::sax_parse(json.begin(), json.end(), &builder);
  return builder.take();
}

}  // namespace spillway::jinja
