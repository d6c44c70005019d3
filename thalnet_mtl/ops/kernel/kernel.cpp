// The sequence of a ThalNet and its gradients on a CPU. `cpp_library.py` compiles and loads this
// file, `cpp.py` calls it.
//
// Rows of the batch are independent: each thread runs a slice of the batch through all steps and
// never waits for another thread. A step writes all results for a row of the batch to one row of
// activations:
//
//     [ contexts of all static readings | for every further layer its outputs, or gates of a GRU ]
//
// A static reading is composed with the dense layer that reads the context where that is less work.
// The gates of a GRU of H units are [n | r | z | n_h]: the product with the input adds to the first
// three blocks, the product with the state to the last three. Gradients w.r.t. pre-activations have
// the same layout. They are collected for a few steps, then multiplied with the inputs of their
// layers.
//
// Rows of the batch may have unequal lengths. Inside they are sorted, so that the rows that a step
// computes are the first ones; nothing past the end of a row is read.
//
// The order of every sum depends only on the sizes of the network. A row of the batch therefore has
// a bit-identical forward result in every batch and with any number of threads.

#include <algorithm>
#include <vector>

#include "backward.h"
#include "dynamic.h"
#include "finish.h"
#include "forward.h"
#include "prepare.h"

namespace {

// Where PyTorch uses the same OpenMP, these are its threads, which are awake already.
template <class F>
void parallel(int jobs, int threads, F work) {
#pragma omp parallel for num_threads(std::min(jobs, threads)) schedule(static, 1)
    for (int job = 0; job < jobs; job++) work(job);
}

template <class T>
int64_t run(const int64_t* numbers, void* const* pointers, void* const* gradients, bool backward) {
    Cursor cursor{numbers, pointers, gradients};
    const int replicas = cursor.number(), threads = cursor.number();
    std::vector<Net<T>> nets(replicas);
    for (int k = 0; k < replicas; k++) nets[k].describe(cursor, k);
    if (!backward && !pointers[1]) return nets[0].columns;  // a query for the width of activations
    const int batch = nets[0].batch, modules = nets[0].modules.size();
    for (auto& net : nets) net.begin();
    parallel(replicas * modules, threads, [&](int k) {
        Net<T>& net = nets[k / modules];
        net.prepare(net.modules[k % modules], backward);
    });
    parallel(replicas, threads, [&](int k) { nets[k].read_panels(backward); });

    const int slices = std::clamp(threads / replicas, 1, std::max(1, batch / MIN_ROWS));
    std::vector<Buffer<T>> sums(replicas * slices);
    parallel(replicas * slices, threads, [&](int job) {
        Net<T>& net = nets[job / slices];
        const int slice = job % slices;
        const int from = net.first_row(slice, slices), to = net.first_row(slice + 1, slices);
        if (backward) sums[job].assign(net.needs_weight_grads ? net.sum_count : 0, T(0));
        const int parts = std::max(1, (to - from + BLOCK_ROWS / 2) / BLOCK_ROWS);
        for (int k = 0; k < parts; k++) {
            const int a = from + (to - from) * k / parts, b = from + (to - from) * (k + 1) / parts;
            if (backward) net.backward(a, b, sums[job]);
            else net.forward(a, b);
        }
    });
    if (backward) parallel(replicas, threads, [&](int k) { nets[k].return_inputs(); });
    if (!backward || !nets[0].needs_weight_grads) return 0;

    const long sum_count = nets[0].sum_count;
    parallel(replicas * slices, threads, [&](int job) {  // each job adds up a part of the sums
        Buffer<T>* of = &sums[job / slices * slices];
        const int part = job % slices;
        for (int s = 1; s < slices; s++)
            for (long i = sum_count * part / slices; i < sum_count * (part + 1) / slices; i++)
                of[0][i] += of[s][i];
    });
    parallel(replicas * modules, threads, [&](int k) {
        Net<T>& net = nets[k / modules];
        net.finish(net.modules[k % modules], sums[k / modules * slices].data());
    });
    return 0;
}

}  // namespace

extern "C" {
int64_t forward_float(const int64_t* n, void* const* p) {
    return run<float>(n, p, nullptr, false);
}
int64_t forward_double(const int64_t* n, void* const* p) {
    return run<double>(n, p, nullptr, false);
}
int64_t backward_float(const int64_t* n, void* const* p, void* const* g) {
    return run<float>(n, p, g, true);
}
int64_t backward_double(const int64_t* n, void* const* p, void* const* g) {
    return run<double>(n, p, g, true);
}
}
