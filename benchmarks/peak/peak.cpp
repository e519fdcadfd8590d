// What the machine can do, for the fractions in the table: {"gflops": ..., "gbs": ..., "width": ...}, the highest of many short runs.
//
// Multiply-adds: 12 independent chains of vectors a thread, enough to hide their latency; two operations each.
// Memory: the largest of a sum (one array read) and a = b + 3 * c (two read, one written).
//
// `peak apart`: how long a word takes from one core to another and back, {"apart": nanoseconds}, of the first two that this process may use. On a virtual
// machine it changes as the host moves it: cores of one cache answer in some 60 ns, those of two processors in 300.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <omp.h>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__SSE__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef float Vector __attribute__((vector_size(WIDTH * 4)));

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double chains(long steps) {
  double start = now();
#pragma omp parallel
  {
    Vector x = Vector{} + 0.999f, y = Vector{} + 0.001f;
    Vector a = y, b = y + 1, c = y + 2, d = y + 3, e = y + 4, f = y + 5, g = y + 6, h = y + 7, i = y + 8, j = y + 9, k = y + 10, l = y + 11;
    for (long s = 0; s < steps; s++) {
      a = a * x + y, b = b * x + y, c = c * x + y, d = d * x + y, e = e * x + y, f = f * x + y;
      g = g * x + y, h = h * x + y, i = i * x + y, j = j * x + y, k = k * x + y, l = l * x + y;
    }
    Vector sum = a + b + c + d + e + f + g + h + i + j + k + l;
    asm volatile("" : : "m"(sum)); // all of it is wanted
  }
  return 2.0 * WIDTH * 12 * static_cast<double>(steps) * omp_get_max_threads() / (now() - start);
}

/// Writes past the caches where the processor can, which saves reading what is overwritten.
static void triad(float* a, const float* b, const float* c, long n) {
#if defined(__SSE__)
#pragma omp parallel for
  for (long i = 0; i < n; i += 4)
    _mm_stream_ps(a + i, _mm_add_ps(_mm_loadu_ps(b + i), _mm_mul_ps(_mm_set1_ps(3.0f), _mm_loadu_ps(c + i))));
#else
#pragma omp parallel for
  for (long i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
#endif
}

/// Nanoseconds, 0 where threads cannot be held on a core or there is only one.
static double apart() {
#if defined(__linux__)
  cpu_set_t allowed, core[2];
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  int found = 0;
  for (int i = 0; i < CPU_SETSIZE && found < 2; i++) {
    if (!CPU_ISSET(i, &allowed)) continue;
    CPU_ZERO(&core[found]);
    CPU_SET(i, &core[found++]);
  }
  if (found < 2) return 0;
  constexpr int turns = 20000;
  std::atomic<int> word{0};
  std::thread other([&] {
    sched_setaffinity(0, sizeof core[1], &core[1]);
    for (int i = 0; i < turns; i++) {
      while (word.load(std::memory_order_acquire) != 2 * i + 1) {}
      word.store(2 * i + 2, std::memory_order_release);
    }
  });
  sched_setaffinity(0, sizeof core[0], &core[0]);
  double start = 0;
  for (int i = 0; i < turns; i++) {
    if (i == turns / 2) start = now();
    word.store(2 * i + 1, std::memory_order_release);
    while (word.load(std::memory_order_acquire) != 2 * i + 2) {}
  }
  const double nanoseconds = (now() - start) * 1e9 / (turns - turns / 2);
  other.join();
  return nanoseconds;
#else
  return 0;
#endif
}

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "apart") == 0) {
    std::printf("{\"apart\": %.0f}\n", apart());
    return 0;
  }
  omp_set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  double flops = 0, bytes = 0;
  for (int run = 0; run < 300; run++) flops = std::max(flops, chains(300000));
  const long n = 16L << 20;
  std::vector<float> a(n), b(n, 1.0f), c(n, 2.0f);
  volatile float kept = 0;
  for (int run = 0; run < 40; run++) {
    double start = now();
    triad(a.data(), b.data(), c.data(), n);
    bytes = std::max(bytes, 12.0 * n / (now() - start));
    start = now();
    float total = 0;
#pragma omp parallel for simd reduction(+ : total)
    for (long i = 0; i < n; i++) total += b[i];
    kept = total;
    bytes = std::max(bytes, 4.0 * n / (now() - start));
  }
  (void)kept;
  std::printf("{\"gflops\": %.1f, \"gbs\": %.1f, \"width\": %d}\n", flops / 1e9, bytes / 1e9, WIDTH);
}
