// The sequence of a ThalNet and its derivatives on a CPU; `cpp.py` builds, loads and calls this.
//
// Rows of the batch never meet, so every thread owns a slice of the batch for all steps, and no
// thread waits for another. All that a step computes for a row lies in one row of activations:
//
//     [ what all static readings read | per further layer its outputs, or the gates of a GRU ]
//
// A static reading is composed with the dense layer behind it where that is less work. The gates
// of a GRU of H units lie as [n | r | z | n_h]: the product with the input adds to the first three
// blocks, that with the state to the last three. Gradients by pre-activations have the same layout;
// a few steps of them are kept, then multiplied with the activations that they belong to.
//
// Each number is summed in an order that depends on nothing but the shapes of the net, so that a
// row has the same result to the bit in whatever batch and on however many threads it is computed.

#include <algorithm>
#include <vector>

#include "backward.h"
#include "dynamic.h"
#include "finish.h"
#include "forward.h"
#include "prepare.h"

namespace {

// PyTorch's own threads where both use the same OpenMP: they are awake already.
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
    if (!backward && !pointers[0]) return nets[0].columns;  // only asked for the width of a row
    const int batch = nets[0].batch, modules = nets[0].modules.size();
    for (auto& net : nets) net.begin();
    parallel(replicas * modules, threads, [&](int k) {
        Net<T>& net = nets[k / modules];
        net.prepare(net.modules[k % modules], backward);
    });
    parallel(replicas, threads, [&](int k) { nets[k].read_panels(backward); });

    const int slices = std::clamp(threads / replicas, 1, std::max(1, batch / LEAST));
    std::vector<Buffer<T>> sums(replicas * slices);
    parallel(replicas * slices, threads, [&](int job) {
        Net<T>& net = nets[job / slices];
        const int slice = job % slices;
        const int from = batch * slice / slices, to = batch * (slice + 1) / slices;
        if (backward) sums[job].assign(net.learns ? net.kept : 0, T(0));
        const int parts = std::max(1, (to - from + BLOCK / 2) / BLOCK);
        for (int k = 0; k < parts; k++) {
            const int a = from + (to - from) * k / parts, b = from + (to - from) * (k + 1) / parts;
            if (backward) net.backward(a, b, sums[job]);
            else net.forward(a, b);
        }
    });
    if (!backward || !nets[0].learns) return 0;

    const long kept = nets[0].kept;
    parallel(replicas * slices, threads, [&](int job) {  // each a part of all sums
        Buffer<T>* of = &sums[job / slices * slices];
        const int part = job % slices;
        for (int s = 1; s < slices; s++)
            for (long i = kept * part / slices; i < kept * (part + 1) / slices; i++)
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
