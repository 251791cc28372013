// The plot of sweep_report.h: plain SVG, readable in light and dark surroundings since it brings
// its own background.
#include <algorithm>
#include <cmath>
#include <optional>

#include "launch/sweep_report.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 480;
constexpr double kLeft = 80;
constexpr double kRight = 24;
constexpr double kTop = 70;
constexpr double kBottom = 64;
constexpr const char* kMeasured = "#0b6e99";
constexpr const char* kPredicted = "#c4622d";

std::string number(double value) { return fixed_text(value, 1); }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c >= ' ' && c <= '~' ? c : '?';  // a model's name may be anything
    }
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that some five marks lie up to `most`.
double mark_step(double most) {
  const double raw = most / 5;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

class Plot {
 public:
  Plot(const std::string& title, double most_x, double most_y) : most_x_(most_x), most_y_(most_y) {
    out_ =
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 480\" "
        "font-family=\"sans-serif\" font-size=\"13\">\n"
        "<rect width=\"760\" height=\"480\" fill=\"#ffffff\"/>\n";
    text(kLeft, 26, title, "start", "#222222", 15);
  }

  double x(double value) const { return kLeft + value / most_x_ * (kWidth - kLeft - kRight); }
  double y(double value) const {
    return kHeight - kBottom - value / most_y_ * (kHeight - kTop - kBottom);
  }

  void axes(const std::string& x_name, const std::string& y_name, double x_step,
            const std::string& x_unit) {
    for (double v = 0; v <= most_x_ * 1.0001; v += x_step) {
      line(x(v), y(0), x(v), y(most_y_), "#e4e4e4", 1);
      text(x(v), y(0) + 20, shortest_text(std::round(v * 1000) / 1000) + x_unit, "middle",
           "#444444", 13);
    }
    const double y_step = mark_step(most_y_);
    for (double v = 0; v <= most_y_ * 1.0001; v += y_step) {
      line(x(0), y(v), x(most_x_), y(v), "#e4e4e4", 1);
      text(x(0) - 8, y(v) + 4, shortest_text(std::round(v * 1000) / 1000), "end", "#444444", 13);
    }
    text((kLeft + kWidth - kRight) / 2, kHeight - 18, x_name, "middle", "#222222", 13);
    out_ += "<text transform=\"translate(22 " + number((kTop + kHeight - kBottom) / 2) +
            ") rotate(-90)\" text-anchor=\"middle\" fill=\"#222222\">" + escaped(y_name) +
            "</text>\n";
  }

  void line(double x1, double y1, double x2, double y2, const char* colour, double width) {
    out_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
            "\" y2=\"" + number(y2) + "\" stroke=\"" + colour + "\" stroke-width=\"" +
            number(width) + "\"/>\n";
  }

  // With a tip that a browser shows.
  void dot(double at_x, double at_y, const char* colour, bool hollow, const std::string& tip) {
    out_ += "<circle cx=\"" + number(x(at_x)) + "\" cy=\"" + number(y(at_y)) +
            "\" r=\"5\" fill=\"" + (hollow ? "#ffffff" : colour) + "\" stroke=\"" + colour +
            "\" stroke-width=\"2\"><title>" + escaped(tip) + "</title></circle>\n";
  }

  // From the least to the greatest of what a dot is the median of.
  void range(double at_x, const Measured& of, const char* colour) {
    if (of.runs.size() < 2) return;
    line(x(at_x), y(of.least), x(at_x), y(of.most), colour, 1);
    for (const double end : {of.least, of.most}) {
      line(x(at_x) - 4, y(end), x(at_x) + 4, y(end), colour, 1);
    }
  }

  void text(double at_x, double at_y, const std::string& words, const char* anchor,
            const char* colour, int size) {
    out_ += "<text x=\"" + number(at_x) + "\" y=\"" + number(at_y) + "\" text-anchor=\"" + anchor +
            "\" fill=\"" + colour + "\" font-size=\"" + std::to_string(size) + "\">" +
            escaped(words) + "</text>\n";
  }

  // The place-th entry in the line below the title, where no dot can lie. Without `hollow` a line.
  void legend(int place, std::optional<bool> hollow, const std::string& words, const char* colour) {
    const double left = kLeft + 5 + 150 * place;
    if (hollow) {
      out_ += "<circle cx=\"" + number(left) + "\" cy=\"46\" r=\"5\" fill=\"" +
              (*hollow ? "#ffffff" : colour) + "\" stroke=\"" + colour +
              "\" stroke-width=\"2\"/>\n";
    } else {
      line(left - 6, 46, left + 6, 46, colour, 1);
    }
    text(left + 12, 50, words, "start", colour, 13);
  }

  std::string take() { return out_ + "</svg>\n"; }

 private:
  double most_x_, most_y_;
  std::string out_;
};

std::string tip_of(const SweepRow& row) {
  const Measured& of = row.decode;
  const std::string range =
      of.runs.size() < 2 ? ""
                         : " (" + fixed_text(of.least, 2) + " to " + fixed_text(of.most, 2) + ")";
  return row.name + ": " + fixed_text(of.median, 2) + " tok/s" + range + ", predicted " +
         fixed_text(row.predicted_decode, 2);
}

double greatest(const std::vector<SweepRow>& rows) {
  double most = 0;
  for (const SweepRow& row : rows)
    most = std::max({most, row.decode.median, row.decode.most, row.predicted_decode});
  return most > 0 ? most * 1.08 : 1;
}

std::string offload_svg(const std::vector<SweepRow>& rows, const std::string& title) {
  Plot plot(title, 100, greatest(rows));
  plot.axes("weights of the layers in GPU memory", "decode, tokens a second", 20, " %");
  for (const bool measured : {false, true}) {
    const char* colour = measured ? kMeasured : kPredicted;
    const auto rate = [measured](const SweepRow& row) {
      return measured ? row.decode.median : row.predicted_decode;
    };
    const SweepRow* last = nullptr;
    for (const SweepRow& row : rows) {
      if (rate(row) <= 0) continue;
      if (last != nullptr) {
        plot.line(plot.x(100 * last->on_gpu), plot.y(rate(*last)), plot.x(100 * row.on_gpu),
                  plot.y(rate(row)), colour, measured ? 2.5 : 1.5);
      }
      if (measured) plot.range(100 * row.on_gpu, row.decode, colour);
      plot.dot(100 * row.on_gpu, rate(row), colour, !measured, tip_of(row));
      last = &row;
    }
    plot.legend(measured ? 1 : 0, !measured, measured ? "measured" : "predicted", colour);
  }
  return plot.take();
}

}  // namespace

std::string sweep_svg(const std::vector<SweepRow>& rows, const std::string& title, bool offload) {
  if (offload) return offload_svg(rows, title);
  const double most = greatest(rows);
  Plot plot(title, most, most);
  plot.axes("predicted decode, tokens a second", "measured decode, tokens a second",
            mark_step(most), "");
  plot.line(plot.x(0), plot.y(0), plot.x(most), plot.y(most), "#999999", 1);
  for (const SweepRow& row : rows) {
    if (row.decode.median <= 0) continue;
    plot.range(row.predicted_decode, row.decode, kMeasured);
    plot.dot(row.predicted_decode, row.decode.median, kMeasured, row.control, tip_of(row));
  }
  plot.legend(0, false, "the best predicted", kMeasured);
  const bool controls =
      std::any_of(rows.begin(), rows.end(), [](const SweepRow& row) { return row.control; });
  if (controls) plot.legend(1, true, "controls", kMeasured);
  plot.legend(controls ? 2 : 1, std::nullopt, "as predicted", "#777777");
  return plot.take();
}

}  // namespace spillway
