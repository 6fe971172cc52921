// Registers the cases of the table with Google Benchmark, whose options it also takes; --help lists them.
#include "bench.h"

#include <benchmark/benchmark.h>
#include <xent/xent.h>

#include <algorithm>
#include <dlfcn.h>
#include <string>

// A run. While they wait for each other threads spin, so that one that had no CPU was kept from it by another process,
// or was out of work for long. Then the run is repeated; it counts as it is if that does not change.
static bench_seconds run(const bench_case *self)
{
    const int most_attempts = 8;
    const double enough = 0.95;
    bench_seconds seconds = bench_time(self);
    for (int i = 1; i < most_attempts && self->threads > 1 && seconds.on_cpu < enough * seconds.wall; i++)
        seconds = bench_time(self);
    return seconds;
}

static void measure(benchmark::State &state, const bench_case *self)
{
    bench_prepare(self);
    // The caches and the clock are as another case left them: these runs put them as this one leaves them.
    for (size_t i = 0; i < self->warm_ups; i++)
        bench_time(self);
    double runs = 0, on_cpu = 0;
    for (auto _ : state) {
        bench_seconds seconds = run(self);
        state.SetIterationTime(seconds.wall);
        on_cpu += seconds.on_cpu;
        runs++;
    }
    using benchmark::Counter;
    state.counters["logits"] = self->logits;
    state.counters["logits_per_second"] = Counter(runs * self->logits, Counter::kIsRate);
    // Below 1 where threads had to wait for a CPU, or had nothing to do for long.
    state.counters["cpu_share"] = Counter(on_cpu, Counter::kIsRate);
    state.counters["pool_threads"] = static_cast<double>(self->threads);
    state.counters["buffers"] = static_cast<double>(self->layout.buffers);
    if (self->bytes > 0)
        state.counters["bytes_per_second"] = Counter(runs * self->bytes, Counter::kIsRate);
}

// The largest cache, times as many of them as the threads can reach.
static size_t last_level_cache(const bench_selection &selection)
{
    const auto &cpu = benchmark::CPUInfo::Get();
    size_t threads = *std::max_element(selection.threads, selection.threads + selection.thread_count);
    size_t size = 0, instances = 1;
    for (const auto &cache : cpu.caches)
        if (cache.type != "Instruction" && static_cast<size_t>(cache.size) > size) {
            size = static_cast<size_t>(cache.size);
            instances = static_cast<size_t>(std::max(cpu.num_cpus / std::max(cache.num_sharing, 1), 1));
        }
    const size_t usual = size_t{32} << 20;
    return size ? size * std::min(threads, instances) : usual;
}

// The file that the calls come from: another one than at link time if the environment says so.
static std::string library()
{
    Dl_info info;
    return dladdr(reinterpret_cast<void *>(xent_version), &info) && info.dli_fname ? info.dli_fname : "";
}

static void add_context(const bench_selection &selection)
{
    std::string isas, threads;
    for (size_t i = 0; i < selection.isa_count; i++)
        isas += (i ? "," : "") + std::string(selection.isas[i]);
    for (size_t i = 0; i < selection.thread_count; i++)
        threads += (i ? "," : "") + std::to_string(selection.threads[i]);
    benchmark::AddCustomContext("isas", isas);
    benchmark::AddCustomContext("threads", threads);
    benchmark::AddCustomContext("seed", std::to_string(bench_seed()));
    benchmark::AddCustomContext("last_level_cache", std::to_string(selection.last_level_cache));
    benchmark::AddCustomContext("xent_version", std::to_string(xent_version()));
    benchmark::AddCustomContext("numerics_version", std::to_string(xent_numerics_version()));
    benchmark::AddCustomContext("library", library());
}

int main(int argc, char **argv)
{
    bench_selection selection;
    if (!bench_select(&selection, &argc, argv))
        return 1;
    if (selection.errors) {
        bench_errors(&selection);
        return 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    selection.last_level_cache = last_level_cache(selection);
    add_context(selection);
    size_t count = 0;
    const bench_case *cases = bench_cases(&selection, &count);
    for (size_t i = 0; i < count; i++)
        benchmark::RegisterBenchmark(cases[i].name, measure, &cases[i])
            ->Iterations(static_cast<benchmark::IterationCount>(cases[i].iterations))
            ->UseManualTime();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
