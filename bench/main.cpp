// Registers the cases of the table with Google Benchmark, whose options it also takes; --help lists them.
#include "bench.h"

#include <benchmark/benchmark.h>

#include <string>

static void measure(benchmark::State &state, const bench_case *self)
{
    bench_prepare(self);
    // The caches and the clock are as another case left them: one run puts them as this one leaves them.
    bench_time(self);
    double runs = 0, on_cpu = 0;
    for (auto _ : state) {
        bench_seconds seconds = bench_time(self);
        state.SetIterationTime(seconds.wall);
        on_cpu += seconds.on_cpu;
        runs++;
    }
    using benchmark::Counter;
    state.counters["logits"] = self->logits;
    state.counters["logits_per_second"] = Counter(runs * self->logits, Counter::kIsRate);
    // Below 1 where another process held the CPU for part of the time.
    state.counters["cpu_share"] = Counter(on_cpu, Counter::kIsRate);
    if (self->bytes > 0)
        state.counters["bytes_per_second"] = Counter(runs * self->bytes, Counter::kIsRate);
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
    std::string isas;
    for (size_t i = 0; i < selection.isa_count; i++)
        isas += (i ? "," : "") + std::string(selection.isas[i]);
    benchmark::AddCustomContext("isas", isas);
    benchmark::AddCustomContext("seed", std::to_string(bench_seed()));
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
