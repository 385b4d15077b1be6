// The model's pass over a few tokens of several slots as one call, for CPUs. fast.py packs the weights and documents it.
//
// Reading the weights is what a token costs when it comes alone, so they are stored in the order in which they are
// read: blocks of 32 outputs, and within a block input after input. Every sum runs over its inputs in one order,
// whatever else is computed beside it: a row's result never depends on the other rows, nor on how a prompt is cut.
//
// Numbers: float32, in the cache too, so that only weights are rounded: to bfloat16, or to int8 with one scale an
// output. A processor that multiplies bfloat16 (AVX512-BF16) gets a feature as the sum of two of them, which together
// have 16 of float32's 24 binary digits: the products of a step wait for weights, not for this.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef uint16_t bf16;
typedef float floats __attribute__((vector_size(64)));  // 16 of them
typedef uint32_t words __attribute__((vector_size(64)));
typedef int32_t whole __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef int8_t bytes __attribute__((vector_size(16)));

constexpr int LANES = 16, BLOCK = 32, TILE = 8;
enum Format { FLOAT32, BFLOAT16, INT8 };
#ifdef __AVX512BF16__
constexpr bool MULTIPLIES_BF16 = true;
#else
constexpr bool MULTIPLIES_BF16 = false;
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Sixteen numbers at once
// ---------------------------------------------------------------------------------------------------------------------

static inline floats load(const float* from) { floats x; memcpy(&x, from, sizeof x); return x; }
static inline void store(float* to, floats x) { memcpy(to, &x, sizeof x); }
static inline floats all(float x) { return floats{} + x; }

static inline floats load(const bf16* from) {
    halves h;
    memcpy(&h, from, sizeof h);
    return (floats)(__builtin_convertvector(h, words) << 16);
}

// To the nearest, ties to even.
static inline void store(bf16* to, floats x) {
    words bits = (words)x;
    halves h = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
    memcpy(to, &h, sizeof h);
}

static inline float store(bf16* to, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    *to = bits >> 16;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

static inline floats load(const int8_t* from) {
#ifdef __AVX512F__
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#else
    bytes b;
    memcpy(&b, from, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, whole), floats);
#endif
}

static inline float sum(floats x) {
    typedef float half __attribute__((vector_size(32)));
    typedef float quarter __attribute__((vector_size(16)));
    half a, b;
    memcpy(&a, &x, 32);
    memcpy(&b, (char*)&x + 32, 32);
    a += b;
    quarter c, d;
    memcpy(&c, &a, 16);
    memcpy(&d, (char*)&a + 16, 16);
    c += d;
    return (c[0] + c[2]) + (c[1] + c[3]);
}

static inline floats larger(floats a, floats b) { return a > b ? a : b; }

// e^x to about 2 units in the last place: x = n ln 2 + r, a polynomial for e^r, and n added to the exponent.
static inline floats exponential(floats x) {
    x = larger(x, all(-87.0f));
    x = x < 88.0f ? x : all(88.0f);
    whole n = __builtin_convertvector(x * 1.44269504f + (x < 0.0f ? all(-0.5f) : all(0.5f)), whole);
    floats k = __builtin_convertvector(n, floats);
    floats r = x - k * 0.693359375f + k * 2.12194440e-4f;
    floats p = all(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = p * r + c;
    p = p * r * r + r + 1.0f;
    return p * (floats)((n + 127) << 23);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads that share what one of them has to do
// ---------------------------------------------------------------------------------------------------------------------

// The caller cuts a piece of work into tasks, and whoever is there takes the next one. So a thread that the system has
// put aside for a while, as happens on a busy machine, holds nobody up, unless it is in the middle of a task.
struct Team {
    using Task = void (*)(const void* work, int task, int thread);
    int size;
    std::vector<std::thread> others;
    std::atomic<Task> run{nullptr};
    std::atomic<const void*> work{nullptr};
    // What is to be done now: its number (32 bits), its tasks (16), and the next of them (16). In one word, so that
    // nobody takes a task of work that is over: all that a thread reads of a work is valid while a task of it is open.
    std::atomic<uint64_t> open{0};
    std::atomic<int> done{0};
    std::atomic<bool> is_over{false};

    explicit Team(int size) : size(size) {
        for (int t = 1; t < size; t++)
            others.emplace_back([this, t] {
                for (uint64_t seen = 0; !is_over;) {
                    take_tasks(t);
                    wait_while([&] { return open.load() >> 32 == seen >> 32 && !is_over; }, &open);
                    seen = open.load();
                }
            });
    }

    ~Team() {
        is_over = true;
        open.fetch_add(1ull << 32);
        open.notify_all();
        for (auto& thread : others) thread.join();
    }

    // what(task, thread) for each of `tasks` tasks; returns when all are done.
    template <class What>
    void share(int tasks, const What& what) {
        if (tasks == 1 || size == 1) {
            for (int task = 0; task < tasks; task++) what(task, 0);
            return;
        }
        run = [](const void* work, int task, int thread) { (*(const What*)work)(task, thread); };
        work = &what;
        done = 0;
        open = ((open.load() >> 32) + 1) << 32 | (uint64_t)tasks << 16;
        open.notify_all();
        take_tasks(0);
        wait_while([&] { return done.load() < tasks; }, nullptr);
    }

    void take_tasks(int thread) {
        for (uint64_t now = open.load();;) {
            int task = now & 0xffff, tasks = now >> 16 & 0xffff;
            if (task >= tasks) return;
            Task what = run;
            const void* on = work;
            if (!open.compare_exchange_weak(now, now + 1)) continue;
            what(on, task, thread);
            done.fetch_add(1);
            now = open.load();
        }
    }

    // Look again and again, for microseconds; then offer the core to others in between; after a millisecond or so sleep.
    template <class Condition>
    static void wait_while(Condition is_so, std::atomic<uint64_t>* changes) {
        for (int i = 0; is_so(); i++) {
            if (i < 300) {
#if defined(__x86_64__)
                _mm_pause();
#endif
                continue;
            }
            if (i < 3000 || !changes) {
                std::this_thread::yield();
                continue;
            }
            uint64_t now = changes->load();
            if (is_so()) changes->wait(now);
        }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Products
// ---------------------------------------------------------------------------------------------------------------------

struct Matrix {
    const void* packed;   // (blocks, inputs / 2, BLOCK, 2); float32: (blocks, inputs, BLOCK)
    const float* scales;  // one an output; for int8 alone
    int outputs, inputs;  // outputs: a multiple of BLOCK
};

// What enters a product: rows of floats; where bfloat16 is multiplied, of the numbers rounded and, behind them in the
// same row, of what rounding took away, rounded too.
struct Rows {
    std::vector<float> exact;
    std::vector<bf16> halved;
    bool is_halved = false;
    int width = 0;
    void shape(int rows, int columns, bool in_halves) {
        is_halved = in_halves, width = columns;
        is_halved ? halved.resize(2 * (size_t)rows * columns) : exact.resize((size_t)rows * columns);
    }
    void put(int row, int column, floats x) {
        if (!is_halved) return store(&exact[(size_t)row * width + column], x);
        bf16* to = &halved[2 * (size_t)row * width + column];
        store(to, x);
        store(to + width, x - load(to));
    }
    void put(int row, int column, float x) {
        if (!is_halved) exact[(size_t)row * width + column] = x;
        else {
            bf16* to = &halved[2 * (size_t)row * width + column];
            store(to + width, x - store(to, x));
        }
    }
};

template <int R>
static inline void tile(const float* w, const float* x, int inputs, floats (&sums)[R][2]) {
    for (int i = 0; i < inputs; i++, w += BLOCK) {
        floats first = load(w), second = load(w + LANES);
        for (int r = 0; r < R; r++) {
            floats value = all(x[(size_t)r * inputs + i]);
            sums[r][0] += first * value;
            sums[r][1] += second * value;
        }
    }
}

#ifdef __AVX512BF16__
static inline __m512bh pairs(const bf16* w) { return (__m512bh)_mm512_loadu_si512(w); }
static inline __m512bh pairs(const int8_t* w) {
    return _mm512_cvtne2ps_pbh((__m512)load(w + LANES), (__m512)load(w));
}
#endif

template <int R, class Weight>
static inline void tile(const Weight* w, const bf16* x, int inputs, floats (&sums)[R][2]) {
#ifdef __AVX512BF16__
    for (int i = 0; i < inputs; i += 2, w += 2 * BLOCK) {
        __m512bh first = pairs(w), second = pairs(w + 2 * LANES);
        for (int r = 0; r < R; r++) {
            const bf16* at = x + 2 * (size_t)r * inputs + i;
            for (const bf16* half : {at, at + inputs}) {
                int pair;
                memcpy(&pair, half, sizeof pair);
                __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
                sums[r][0] = (floats)_mm512_dpbf16_ps((__m512)sums[r][0], first, value);
                sums[r][1] = (floats)_mm512_dpbf16_ps((__m512)sums[r][1], second, value);
            }
        }
    }
#endif
}

template <int R, class Weight, class Number, class Finish>
static inline void tile_rows(const Weight* w, const Number* x, const Matrix& m, int block, int row, Finish& finish) {
    floats sums[R][2] = {};
    tile<R>(w, x + (size_t)row * m.inputs * (sizeof(float) / sizeof(Number)), m.inputs, sums);
    for (int r = 0; r < R; r++)
        for (int part = 0; part < 2; part++) {
            int output = block * BLOCK + part * LANES;
            finish(row + r, output, m.scales ? sums[r][part] * load(m.scales + output) : sums[r][part]);
        }
}

template <class Weight, class Number, class Finish>
static inline void block_rows(const Weight* w, const Number* x, const Matrix& m, int block, int rows, Finish& finish) {
    int row = 0;
    for (; row + TILE <= rows; row += TILE) tile_rows<TILE>(w, x, m, block, row, finish);
    for (; row + 4 <= rows; row += 4) tile_rows<4>(w, x, m, block, row, finish);
    for (; row + 2 <= rows; row += 2) tile_rows<2>(w, x, m, block, row, finish);
    for (; row < rows; row++) tile_rows<1>(w, x, m, block, row, finish);
}

// A block's weights as bfloat16 in the same order.
static void as_bf16(const int8_t* from, size_t count, bf16* to) {
#ifdef __AVX512BF16__
    for (size_t i = 0; i < count; i += 2 * LANES) {
        __m512bh both = pairs(from + i);
        memcpy(to + i, &both, sizeof both);
    }
#endif
}

// A block's pairs of weights as float32, input after input: for processors that do not multiply bfloat16.
template <class Number>
static void as_floats(const Number* from, int inputs, float* to) {
    float two[2 * BLOCK];
    for (int i = 0; i < inputs; i += 2, from += 2 * BLOCK, to += 2 * BLOCK) {
        for (int at = 0; at < 2 * BLOCK; at += LANES) store(two + at, load(from + at));
        for (int o = 0; o < BLOCK; o++) to[o] = two[2 * o], to[BLOCK + o] = two[2 * o + 1];
    }
}

// finish(row, output, 16 sums) for every output of these blocks, of every row of x.
template <class Finish>
static void product(const Matrix& m, Format format, const Rows& x, int rows, int block, int end,
                    std::vector<float>& scratch, Finish finish) {
    size_t size = (size_t)BLOCK * m.inputs;
    scratch.resize(std::max(scratch.size(), size));
    for (; block < end; block++) {
        if (format == FLOAT32) {
            block_rows((const float*)m.packed + block * size, x.exact.data(), m, block, rows, finish);
        } else if (MULTIPLIES_BF16) {
            const bf16 *w = (const bf16*)m.packed + block * size, *values = x.halved.data();
            const int8_t* small = (const int8_t*)m.packed + block * size;
            if (format == INT8 && rows <= TILE) {
                block_rows(small, values, m, block, rows, finish);
                continue;
            }
            if (format == INT8) {
                as_bf16(small, size, (bf16*)scratch.data());
                w = (const bf16*)scratch.data();
            }
            block_rows(w, values, m, block, rows, finish);
        } else {
            if (format == INT8) as_floats((const int8_t*)m.packed + block * size, m.inputs, scratch.data());
            else as_floats((const bf16*)m.packed + block * size, m.inputs, scratch.data());
            block_rows((const float*)scratch.data(), x.exact.data(), m, block, rows, finish);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The model
// ---------------------------------------------------------------------------------------------------------------------

struct Layer {
    Matrix qkv, output, up, down;
    const void* values;  // value embeddings (vocabulary, kv_heads x size), or null
};

struct Shape {
    int32_t vocabulary, layers, heads, kv_heads, width, size, slots, capacity, format, threads, most;
    float eps, softcap, sharpness, share;  // share: of the smear
    int32_t gates;                         // features that open its gate; 0: no smear
};

struct Decoder {
    Shape s;
    std::vector<Layer> layers;
    Matrix head;
    const void* embedding;
    const float *cosine, *sine, *gate;  // (capacity, size / 2) twice, (gates)
    int padded;                         // features of a head in the cache, up to whole vectors
    bool is_exact;                      // tables of float32; else of bfloat16
    std::vector<float> keys, values;    // (layers, slots, kv_heads, capacity, padded)
    std::vector<int32_t> held;          // ids (slots, capacity)
    std::vector<float> x, heads;
    Rows normed, mixed, hidden;
    std::vector<std::vector<float>> scratch;  // one a thread
    Team team;

    explicit Decoder(const Shape& shape) : s(shape), team(shape.threads) {
        padded = (s.size + LANES - 1) / LANES * LANES;
        is_exact = s.format == FLOAT32;
        size_t count = (size_t)s.layers * s.slots * s.kv_heads * s.capacity * padded;
        keys.resize(count);
        values.resize(count);
        held.resize((size_t)s.slots * s.capacity);
        x.resize((size_t)s.most * s.width);
        bool in_halves = MULTIPLIES_BF16 && !is_exact;
        normed.shape(s.most, s.width, in_halves);
        mixed.shape(s.most, s.width, in_halves);
        hidden.shape(s.most, 4 * s.width, in_halves);
        scratch.resize(s.threads);
    }

    size_t place(int layer, int slot, int head) const {
        return (((size_t)layer * s.slots + slot) * s.kv_heads + head) * s.capacity * padded;
    }
};

static void table_row(const Decoder& d, const void* table, int id, int width, float* to) {
    for (int i = 0; i < width; i += LANES) {
        size_t at = (size_t)id * width + i;
        if (width - i >= LANES) {
            store(to + i, d.is_exact ? load((const float*)table + at) : load((const bf16*)table + at));
            continue;
        }
        for (int j = 0; j < width - i; j++) {
            uint32_t bits = d.is_exact ? 0 : (uint32_t)((const bf16*)table)[at + j] << 16;
            if (d.is_exact) memcpy(&bits, (const float*)table + at + j, 4);
            memcpy(to + i + j, &bits, 4);
        }
    }
}

static float norm_scale(const float* x, int width, float eps) {
    floats squares = {};
    for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    return 1.0f / std::sqrt(sum(squares) / width + eps);
}

static void normalise(float* x, int width, float eps) {
    float scale = norm_scale(x, width, eps);
    for (int i = 0; i < width; i += LANES) store(x + i, load(x + i) * scale);
}

static void normalise_into(const float* x, int width, float eps, Rows& to, int row) {
    float scale = norm_scale(x, width, eps);
    for (int i = 0; i < width; i += LANES) to.put(row, i, load(x + i) * scale);
}

// A token's features, of length 1, with a share of the token before it.
static void embed(Decoder& d, int token, int slot, int position, std::vector<float>& scratch) {
    const Shape& s = d.s;
    const int32_t* ids = &d.held[(size_t)slot * s.capacity];
    float* x = &d.x[(size_t)token * s.width];
    table_row(d, d.embedding, ids[position], s.width, x);
    normalise(x, s.width, s.eps);
    if (!s.gates || position == 0) return;
    scratch.resize(std::max(scratch.size(), (size_t)s.width));
    table_row(d, d.embedding, ids[position - 1], s.width, scratch.data());
    normalise(scratch.data(), s.width, s.eps);
    float opened = 0;
    for (int i = 0; i < std::min(s.gates, s.width); i++) opened += x[i] * d.gate[i];
    floats amount = all(s.share / (1.0f + std::exp(-opened)));
    for (int i = 0; i < s.width; i += LANES) store(x + i, load(x + i) + amount * load(&scratch[i]));
}

// Turn a head's features by its position, and give them length 1 (times `scale`), padded to whole vectors.
static void turn(const Decoder& d, const float* from, int position, float scale, float* to) {
    int half = d.s.size / 2;
    const float *c = d.cosine + (size_t)position * half, *n = d.sine + (size_t)position * half;
    for (int i = 0; i < half; i++) {
        to[i] = from[i] * c[i] + from[half + i] * n[i];
        to[half + i] = from[half + i] * c[i] - from[i] * n[i];
    }
    for (int i = d.s.size; i < d.padded; i++) to[i] = 0;
    floats squares = {};
    for (int i = 0; i < d.padded; i += LANES) squares += load(to + i) * load(to + i);
    float norm = scale / std::sqrt(sum(squares) / d.s.size + d.s.eps);
    for (int i = 0; i < d.padded; i += LANES) store(to + i, load(to + i) * norm);
}

// Queries in place; keys and values into the cache.
static void enter_cache(Decoder& d, int layer, float* row, int slot, int position, int id, std::vector<float>& scratch) {
    const Shape& s = d.s;
    int kv_width = s.kv_heads * s.size;
    scratch.resize(std::max(scratch.size(), (size_t)(d.padded + kv_width + LANES)));
    float *turned = scratch.data(), *extra = turned + d.padded;
    const Layer& l = d.layers[layer];
    if (l.values) table_row(d, l.values, id, kv_width, extra);
    for (int head = 0; head < s.kv_heads; head++) {
        size_t at = d.place(layer, slot, head) + (size_t)position * d.padded;
        turn(d, row + (s.heads + head) * s.size, position, 1.0f, turned);
        for (int i = 0; i < d.padded; i += LANES) store(&d.keys[at + i], load(turned + i));
        const float* v = row + (s.heads + s.kv_heads + head) * s.size;
        for (int i = 0; i < d.padded; i++)
            turned[i] = i < s.size ? v[i] + (l.values ? extra[head * s.size + i] : 0.0f) : 0.0f;
        for (int i = 0; i < d.padded; i += LANES) store(&d.values[at + i], load(turned + i));
    }
}

// All query heads that share one key head, over the slot's tokens up to `position`; into rows of `mixed`.
static void attend(Decoder& d, int layer, int token, const float* row, int slot, int position, int head,
                   std::vector<float>& scratch) {
    const Shape& s = d.s;
    int groups = s.heads / s.kv_heads, seen = position + 1, room = (seen + LANES - 1) / LANES * LANES;
    int vectors = d.padded / LANES;
    scratch.resize(std::max(scratch.size(), (size_t)groups * (room + 2 * d.padded)));
    float *q = scratch.data(), *p = q + groups * d.padded, *out = p + groups * room;
    const float* keys = &d.keys[d.place(layer, slot, head)];
    const float* values = &d.values[d.place(layer, slot, head)];
    for (int g = 0; g < groups; g++)
        turn(d, row + (head * groups + g) * s.size, position, s.sharpness / std::sqrt((float)s.size), q + g * d.padded);
    for (int at = 0; at < seen; at++)
        for (int g = 0; g < groups; g++) {
            floats dot = {};
            for (int i = 0; i < vectors; i++)
                dot += load(keys + (size_t)at * d.padded + i * LANES) * load(q + g * d.padded + i * LANES);
            p[g * room + at] = sum(dot);
        }
    for (int g = 0; g < groups; g++) {
        float *row_p = p + g * room, *row_out = out + g * d.padded;
        float most = *std::max_element(row_p, row_p + seen);
        for (int at = seen; at < room; at++) row_p[at] = -INFINITY;
        floats total = {};
        for (int at = 0; at < room; at += LANES) {
            floats part = exponential(load(row_p + at) - most);
            if (at + LANES > seen)
                for (int i = seen - at; i < LANES; i++) part[i] = 0;
            store(row_p + at, part);
            total += part;
        }
        float share = 1.0f / sum(total);
        for (int i = 0; i < d.padded; i += 4 * LANES) {
            floats sums[4] = {};
            int parts = std::min(4, vectors - i / LANES);
            const float* v = values + i;
            if (parts == 4)
                for (int at = 0; at < seen; at++, v += d.padded)
                    for (int j = 0; j < 4; j++) sums[j] += load(v + j * LANES) * row_p[at];
            else
                for (int at = 0; at < seen; at++, v += d.padded)
                    for (int j = 0; j < parts; j++) sums[j] += load(v + j * LANES) * row_p[at];
            for (int j = 0; j < parts; j++) store(row_out + i + j * LANES, sums[j] * share);
        }
    }
    // Heads stand side by side in a row, however many features they have.
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < s.size; i++) d.mixed.put(token, (head * groups + g) * s.size + i, out[g * d.padded + i]);
}

static void pass(Decoder& d, int tokens, const int32_t* slots, const int32_t* positions, int scored,
                 const int32_t* chosen, float* logits) {
    const Shape& s = d.s;
    int across = d.layers[0].qkv.outputs;
    auto row_of = [&](int n) { return &d.heads[(size_t)n * across]; };
    auto each = [&](int count, auto what) { d.team.share(count, what); };
    auto times = [&](const Matrix& m, const Rows& x, int rows, auto finish) {
        int blocks = m.outputs / BLOCK, tasks = std::min(blocks, 8 * s.threads);
        d.team.share(rows ? tasks : 0, [&](int task, int t) {
            int from = blocks * task / tasks, end = blocks * (task + 1) / tasks;
            product(m, (Format)s.format, x, rows, from, end, d.scratch[t], finish);
        });
    };
    auto add = [&](int row, int output, floats sums) {
        float* to = &d.x[(size_t)row * s.width + output];
        if (output < s.width) store(to, load(to) + sums);
    };
    auto norm = [&](int n, int) { normalise_into(&d.x[(size_t)n * s.width], s.width, s.eps, d.normed, n); };

    each(tokens, [&](int n, int t) { embed(d, n, slots[n], positions[n], d.scratch[t]); });
    for (int layer = 0; layer < s.layers; layer++) {
        const Layer& l = d.layers[layer];
        each(tokens, norm);
        times(l.qkv, d.normed, tokens, [&](int n, int output, floats sums) { store(row_of(n) + output, sums); });
        each(tokens, [&](int n, int t) {
            int id = d.held[(size_t)slots[n] * s.capacity + positions[n]];
            enter_cache(d, layer, row_of(n), slots[n], positions[n], id, d.scratch[t]);
        });
        each(tokens * s.kv_heads, [&](int task, int t) {
            int n = task / s.kv_heads;
            attend(d, layer, n, row_of(n), slots[n], positions[n], task % s.kv_heads, d.scratch[t]);
        });
        times(l.output, d.mixed, tokens, add);
        each(tokens, norm);
        times(l.up, d.normed, tokens, [&](int n, int output, floats sums) {
            floats positive = larger(sums, floats{});
            if (output < 4 * s.width) d.hidden.put(n, output, positive * positive);
        });
        times(l.down, d.hidden, tokens, add);
    }
    each(scored, [&](int i, int) {
        normalise_into(&d.x[(size_t)chosen[i] * s.width], s.width, s.eps, d.normed, i);
    });
    times(d.head, d.normed, scored, [&](int n, int output, floats z) {
        // softcap tanh(z / softcap), with tanh(y) = 1 - 2 / (e^2y + 1)
        floats capped = s.softcap - 2.0f * s.softcap / (exponential(z * (2.0f / s.softcap)) + 1.0f);
        float* to = logits + (size_t)n * s.vocabulary + output;
        if (output + LANES <= s.vocabulary) store(to, capped);
        else for (int i = 0; output + i < s.vocabulary; i++) to[i] = capped[i];
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Drawing a token, as sampling.py does it
// ---------------------------------------------------------------------------------------------------------------------

struct Law {
    double uniform;
    float temperature, top_p, min_p;
    int32_t top_k, is_own;
};

constexpr int STEP = 64;  // tokens whose probabilities are summed before the sum is looked at

static double mass(const float* p, int count) {
    double total = 0;
    for (int at = 0; at < count; at += STEP) {
        floats part = {};
        for (int i = at; i < at + STEP; i += LANES) part += load(p + i);
        total += sum(part);
    }
    return total;
}

// p = e^(z / temperature - the largest), zero below `floor`; p has room for whole steps.
static void powers(const float* z, int count, int room, float largest, float rate, float floor, float* p) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        floats scaled = load(z + i) * rate;
        store(p + i, scaled < floor ? floats{} : exponential(scaled - largest));
    }
    for (; i < room; i++) p[i] = i < count && z[i] * rate >= floor ? exponential(all(z[i] * rate - largest))[0] : 0.0f;
}

// The k-th largest number, k <= count. Of the largest of each STEP numbers, the k-th is at most as large as it: so only
// steps that hold one as large need be looked at.
static float kth_largest(const float* z, int count, int k, float* largest, float* kept) {
    int steps = (count + STEP - 1) / STEP;
    float floor = -INFINITY;
    for (int s = 0; s < steps; s++) {
        const float *from = z + s * STEP, *end = z + std::min(count, (s + 1) * STEP);
        floats top = all(from[0]);
        for (; from + LANES <= end; from += LANES) top = larger(top, load(from));
        largest[s] = top[0];
        for (int i = 1; i < LANES; i++) largest[s] = std::max(largest[s], top[i]);
        for (; from < end; from++) largest[s] = std::max(largest[s], *from);
    }
    if (k <= steps) {
        std::copy(largest, largest + steps, kept);
        std::nth_element(kept, kept + k - 1, kept + steps, std::greater<float>());
        floor = kept[k - 1];
    }
    float* end = kept;
    for (int s = 0; s < steps; s++)
        if (largest[s] >= floor)
            end = std::copy_if(z + s * STEP, z + std::min(count, (s + 1) * STEP), end, [=](float x) { return x >= floor; });
    std::nth_element(kept, kept + k - 1, end, std::greater<float>());
    return kept[k - 1];
}

static void draw_one(const float* z, int count, const Law& law, std::vector<float>& scratch, int64_t* id, double* logp) {
    int room = (count + STEP - 1) / STEP * STEP;
    scratch.resize(std::max(scratch.size(), 2 * (size_t)room));
    float *p = scratch.data(), *sorted = p + room;
    floats top = all(z[0]);
    int at = 0;
    for (; at + LANES <= count; at += LANES) top = larger(top, load(z + at));
    float largest = top[0];
    for (int i = 1; i < LANES; i++) largest = std::max(largest, top[i]);
    for (; at < count; at++) largest = std::max(largest, z[at]);
    if (law.temperature == 0) {
        *id = std::find(z, z + count, largest) - z;
        *logp = 0;
    } else {
        float rate = 1.0f / law.temperature, floor = -INFINITY;
        if (law.top_k && law.top_k < count) {
            floor = kth_largest(z, count, law.top_k, p, sorted) * rate;
        }
        powers(z, count, room, largest * rate, rate, floor, p);
        float least = law.min_p;  // the largest is e^0
        if (law.top_p < 1) {
            // Those below (1 - share) / V hold less than 1 - share together: whatever is kept lies above.
            double total = mass(p, room), before = 0;
            float line = (float)((1 - (double)law.top_p) * total / count);
            float* end = std::copy_if(p, p + count, sorted, [&](float x) { return x >= line; });
            std::sort(sorted, end, std::greater<float>());
            float last = sorted[0];
            for (float* x = sorted; x < end && before < law.top_p * total; x++) before += last = *x;
            least = std::max(least, last);
        }
        if (least > 0)
            for (int i = 0; i < room; i++) p[i] = p[i] < least ? 0.0f : p[i];
        double total = mass(p, room), line = law.uniform * total, before = 0;
        int start = 0, found = -1;
        for (; start < room; start += STEP) {
            double part = mass(p + start, STEP);
            if (before + part > line) break;
            before += part;
        }
        for (int i = start; i < count && found < 0; i++)
            if ((before += p[i]) > line && p[i] > 0) found = i;
        for (int i = count - 1; found < 0; i--)  // rounding must not lift the line beyond the last token
            if (p[i] > 0) found = i;
        *id = found;
        *logp = std::log(p[found] / total);
    }
    if (law.is_own) {
        powers(z, count, room, largest, 1.0f, -INFINITY, p);
        *logp = z[*id] - largest - std::log(mass(p, room));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What Python calls
// ---------------------------------------------------------------------------------------------------------------------

struct PackedMatrix {
    const void* packed;
    const float* scales;
    int64_t outputs, inputs;
};

static Matrix matrix(const PackedMatrix& m) { return {m.packed, m.scales, (int)m.outputs, (int)m.inputs}; }

extern "C" {

// `matrices`: four a layer (qkv, output, up, down), then the head. `values`: one table a layer, or null.
Decoder* decoder_new(const Shape* shape, const PackedMatrix* matrices, const void* const* values, const void* embedding,
                     const float* cosine, const float* sine, const float* gate) {
    auto* d = new Decoder(*shape);
    for (int l = 0; l < shape->layers; l++) {
        const PackedMatrix* m = matrices + 4 * l;
        d->layers.push_back({matrix(m[0]), matrix(m[1]), matrix(m[2]), matrix(m[3]), values[l]});
    }
    d->head = matrix(matrices[4 * shape->layers]);
    d->embedding = embedding, d->cosine = cosine, d->sine = sine, d->gate = gate;
    d->heads.resize((size_t)shape->most * d->layers[0].qkv.outputs);
    return d;
}

void decoder_free(Decoder* d) { delete d; }

int decoder_multiplies_bf16() { return MULTIPLIES_BF16; }

// At most `most` tokens, each at a position of a slot; logits (scored, vocabulary) after the `chosen` ones of them.
void decoder_read(Decoder* d, int tokens, const int32_t* ids, const int32_t* slots, const int32_t* positions, int scored,
                  const int32_t* chosen, float* logits) {
    for (int n = 0; n < tokens; n++) d->held[(size_t)slots[n] * d->s.capacity + positions[n]] = ids[n];
    pass(*d, tokens, slots, positions, scored, chosen, logits);
}

void decoder_copy(Decoder* d, int source, int target, int tokens) {
    for (int layer = 0; layer < d->s.layers; layer++)
        for (int head = 0; head < d->s.kv_heads; head++)
            for (auto* cache : {&d->keys, &d->values}) {
                const float* from = &(*cache)[d->place(layer, source, head)];
                std::copy(from, from + (size_t)tokens * d->padded, &(*cache)[d->place(layer, target, head)]);
            }
    memcpy(&d->held[(size_t)target * d->s.capacity], &d->held[(size_t)source * d->s.capacity], tokens * sizeof(int32_t));
}

void decoder_draw(Decoder* d, int rows, const int32_t* chosen, const float* logits, const Law* laws, int64_t* ids,
                  double* logprobs) {
    d->team.share(rows, [=](int r, int t) {
        int count = d->s.vocabulary;
        draw_one(logits + (size_t)chosen[r] * count, count, laws[r], d->scratch[t], ids + r, logprobs + r);
    });
}
}
