// See rates_wire.h. Structured bindings make a field that is forgotten here an error.
#include "rpc/rates_wire.h"

#include <string>

#include "kernels/core/error.h"

namespace spillway {

void cpu_rates_to_wire(const CpuRates& rates, rpc::CpuRates* wire) {
  const auto& [threads, products, attend_gb_per_s, attend_gop_per_s, row_value_ns, value_ns,
               layer_us] = rates;
  wire->set_threads(threads);
  for (const auto& [type, row_gb_per_s, gop_per_s] : products) {
    rpc::ProductRate* product = wire->add_products();
    product->set_type(static_cast<uint32_t>(type));
    product->set_row_gb_per_s(row_gb_per_s);
    product->set_gop_per_s(gop_per_s);
  }
  wire->set_attend_gb_per_s(attend_gb_per_s);
  wire->set_attend_gop_per_s(attend_gop_per_s);
  wire->set_row_value_ns(row_value_ns);
  wire->set_value_ns(value_ns);
  wire->set_layer_us(layer_us);
}

CpuRates cpu_rates_from_wire(const rpc::CpuRates& wire) {
  CpuRates rates;
  rates.threads = wire.threads();
  for (const rpc::ProductRate& product : wire.products()) {
    const auto type = quant_type_from_file(product.type());
    if (!type) {
      throw Error("products of the unknown type " + std::to_string(product.type()),
                  "a rank's rates", "all ranks must run the same build of spillway");
    }
    rates.products.push_back({*type, product.row_gb_per_s(), product.gop_per_s()});
  }
  rates.attend_gb_per_s = wire.attend_gb_per_s();
  rates.attend_gop_per_s = wire.attend_gop_per_s();
  rates.row_value_ns = wire.row_value_ns();
  rates.value_ns = wire.value_ns();
  rates.layer_us = wire.layer_us();
  return rates;
}

}  // namespace spillway
