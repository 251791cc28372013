// What a build with -fsanitize=thread must not report. Distributions build gRPC and Abseil without
// the sanitizer, and their locks are futexes that it cannot see, so everything that passes through
// them looks like a race (some 2000 reports a run, all with a frame of these libraries on top).
// Races between this program's own frames, with none of theirs below, are still reported.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:libgrpc.so\n"
         "race:libgrpc++.so\n"
         "race:libgpr.so\n"
         "race:libabsl\n"
         "race:libupb.so\n"
         "race:libprotobuf.so\n"
         "race:google::protobuf\n"
         "race:grpc::\n";
}
#endif
