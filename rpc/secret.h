// The job's secret: made once by rank 0 (make_job_secret, coordinator.h), carried to the ranks by
// MPI, shown in every Hello. Never logged.
#pragma once

#include <string_view>

namespace spillway {

// Whether both are equal, in a time that depends on the length of `given` only: a stranger cannot
// find the secret byte by byte.
bool secrets_equal(std::string_view expected, std::string_view given);

}  // namespace spillway
