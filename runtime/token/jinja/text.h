// Python's str as far as templates use it: UTF-8 here, counted in code points as Python counts.
// Called by format, operators, filters and methods. Knows no Value and no limits: callers count.
// Case mapping is utf8proc's one-to-one mapping and U+00DF -> "SS"; Python's other one-to-many
// mappings (ligatures, final sigma) are not followed.
// Thread: any; everything here is a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::jinja {

// The offset of the first byte that is not UTF-8, or nothing.
std::optional<size_t> invalid_utf8(std::string_view s);

// The code point at `at`, which moves behind it. Bytes that are not UTF-8 come out as themselves.
char32_t next_code_point(std::string_view s, size_t& at);
void append_utf8(std::string& out, char32_t code_point);
int64_t count_code_points(std::string_view s);
// Offsets of all code points, and the size of s at the end.
std::vector<size_t> code_point_offsets(std::string_view s);

// str.isspace of one character, and str.isprintable.
bool is_space(char32_t c);
bool is_printable(char32_t c);

// str.isalpha, isalnum, isdecimal, isdigit and isnumeric of one character. The last two add the
// categories Nl and No to decimal digits; Python parts them by properties that utf8proc has not:
// isdigit here takes superscripts and circled digits of Latin-1 and U+2070 to U+24FF only.
bool is_letter(char32_t c);
bool is_alphanumeric(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);

// str.strip family; without `chars`, white space.
std::string_view strip(std::string_view s, std::optional<std::string_view> chars, bool left,
                       bool right);
// str.split(None) and str.split(separator); separator not empty; at most `most` cuts, all if < 0.
std::vector<std::string_view> split_space(std::string_view s, int64_t most);
std::vector<std::string_view> split(std::string_view s, std::string_view separator, int64_t most);
std::vector<std::string_view> split_lines(std::string_view s);
// str.replace; at most `most` times, all if < 0. Stops early, cut, once past `limit` bytes.
std::string replace_all(std::string_view s, std::string_view from, std::string_view to,
                        int64_t most, int64_t limit);
// Linear-time search; npos when absent.
size_t find_text(std::string_view s, std::string_view needle, size_t from);
// The last place, linear too: it copies both, where rfind() of the library is quadratic.
size_t find_last_text(std::string_view s, std::string_view needle);
// The bytes from the last to the first, for more than one search from the right.
std::string turned_round(std::string_view s);

std::string upper(std::string_view s);
// str.isupper (or islower): all cased characters are of one case, and there is one.
bool is_of_case(std::string_view s, bool upper_case);
// & < > ' " as HTML writes them.
std::string escape_html(std::string_view s);
std::string lower(std::string_view s);
std::string capitalize(std::string_view s);

// repr(str) with Python's choice of quotes and escapes.
std::string quoted(std::string_view s);
// repr(float): the shortest digits that read back equal, Python's choice of exponent form.
std::string format_double(double d);

}  // namespace spillway::jinja
