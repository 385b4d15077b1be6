/* The element-wise work between two matrix products, each in one pass over memory.

   Every function here has a version in Python beside its caller that says the same in a few lines of PyTorch; tests
   hold the two together, gradients included. What PyTorch does in five operations, each of which reads and writes whole
   tensors, is done here row by row while the row is in the processor's first cache. Sums are float32 whatever the
   numbers are stored in; rows are divided among the threads in a fixed way, so the same bits come out every time.

   Compiled once for each number format (native.py): E is what tensors hold, float or bfloat16. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t size;
typedef union { uint32_t bits; float value; } word;

#ifdef BFLOAT16 /* the upper half of a float32 */
typedef uint16_t E;
static inline float get(E x) { word w = {(uint32_t)x << 16}; return w.value; }
#define FIRST_HALVES 0,32,1,33,2,34,3,35,4,36,5,37,6,38,7,39,8,40,9,41,10,42,11,43,12,44,13,45,14,46,15,47
#define SECOND_HALVES 16,48,17,49,18,50,19,51,20,52,21,53,22,54,23,55,24,56,25,57,26,58,27,59,28,60,29,61,30,62,31,63
static inline E put(float x) /* to nearest, ties to even, as PyTorch rounds */
{
    word w = {.value = x};
    return (w.bits + 0x7fff + (w.bits >> 16 & 1)) >> 16;
}
#else
typedef float E;
#define FIRST_HALVES 0,16,1,17,2,18,3,19,4,20,5,21,6,22,7,23
#define SECOND_HALVES 8,24,9,25,10,26,11,27,12,28,13,29,14,30,15,31
static inline float get(E x) { return x; }
static inline E put(float x) { return x; }
#endif

#define THREADS _Pragma("omp parallel for schedule(static)")
#define VECTOR _Pragma("omp simd")
#define PRAGMA(text) _Pragma(#text)
#define SUM(total) PRAGMA(omp simd reduction(+ : total))

/* e^x for x <= 88, which callers see to. e^x = 2^n e^r with n whole and |r| <= ln 2 / 2: a Taylor polynomial for e^r,
   within 3e-7, and n into the exponent's bits. Below -87 the result would leave float32's normal numbers. NaN stays
   NaN, since comparisons with it are false. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    word two = {(uint32_t)((int32_t)n + 127) << 23};
    return p * two.value;
}

/* y = x / sqrt(mean(x^2) + eps), and the factor of each row for the way back. */
void rms_norm(const E *x, E *y, float *scale, size rows, size c, float eps)
{
    THREADS for (size row = 0; row < rows; row++) {
        const E *in = x + row * c;
        E *out = y + row * c;
        float sum = 0;
        SUM(sum) for (size i = 0; i < c; i++) sum += get(in[i]) * get(in[i]);
        float s = scale[row] = 1 / sqrtf(sum / c + eps);
        VECTOR for (size i = 0; i < c; i++) out[i] = put(get(in[i]) * s);
    }
}

/* dx = s (g - y mean(g y)). */
void rms_norm_backward(const E *grad, const E *y, const float *scale, E *dx, size rows, size c)
{
    THREADS for (size row = 0; row < rows; row++) {
        const E *g = grad + row * c, *out = y + row * c;
        E *in = dx + row * c;
        float dot = 0, s = scale[row];
        SUM(dot) for (size i = 0; i < c; i++) dot += get(g[i]) * get(out[i]);
        dot /= c;
        VECTOR for (size i = 0; i < c; i++) in[i] = put(s * (get(g[i]) - get(out[i]) * dot));
    }
}

/* y = max(x, 0)^2 */
void relu_squared(const E *x, E *y, size n)
{
    THREADS for (size part = 0; part < (n + 4095) / 4096; part++) {
        size end = part * 4096 + 4096 < n ? part * 4096 + 4096 : n;
        VECTOR for (size i = part * 4096; i < end; i++) {
            float v = get(x[i]) < 0 ? 0 : get(x[i]);
            y[i] = put(v * v);
        }
    }
}

/* dx = 2 max(x, 0) g */
void relu_squared_backward(const E *grad, const E *x, E *dx, size n)
{
    THREADS for (size part = 0; part < (n + 4095) / 4096; part++) {
        size end = part * 4096 + 4096 < n ? part * 4096 + 4096 : n;
        VECTOR for (size i = part * 4096; i < end; i++) {
            float v = get(x[i]) < 0 ? 0 : get(x[i]);
            dx[i] = put(2 * v * get(grad[i]));
        }
    }
}

/* One head of one token: its pairs (i, i + half) turned by minus the angle, then the norm, then times `factor`. */
static inline float turn(const E *x, E *y, const float *cosine, const float *sine, size half, float eps, float factor)
{
    float sum = 0;
    SUM(sum) for (size i = 0; i < half; i++) {
        float a = get(x[i]), b = get(x[half + i]);
        sum += a * a + b * b; /* a rotation keeps lengths */
    }
    float s = 1 / sqrtf(sum / (2 * half) + eps), f = s * factor;
    VECTOR for (size i = 0; i < half; i++) {
        float a = get(x[i]), b = get(x[half + i]);
        y[i] = put(f * (a * cosine[i] + b * sine[i]));
        y[half + i] = put(f * (b * cosine[i] - a * sine[i]));
    }
    return s;
}

static inline void turn_back(const E *g, const E *y, E *dx, const float *cosine, const float *sine, size half,
                             float s, float factor)
{
    float dot = 0;
    SUM(dot) for (size i = 0; i < 2 * half; i++) dot += get(g[i]) * get(y[i]);
    float f = s * factor, along = s * dot / (2 * half * factor); /* y is the norm's output x factor */
    VECTOR for (size i = 0; i < half; i++) {
        float a = f * get(g[i]) - along * get(y[i]);
        float b = f * get(g[half + i]) - along * get(y[half + i]);
        dx[i] = put(a * cosine[i] - b * sine[i]);
        dx[half + i] = put(b * cosine[i] + a * sine[i]);
    }
}

/* Rows of (heads of queries, of keys, of values), as one product gives them, to q (B, K, T, H / K, D), k and
   v (B, K, T, D): queries and keys turned and normed, and `more` (rows, K D), where there is any, added to v. */
void heads(const E *qkv, const E *more, E *q, E *k, E *v, float *scale, const float *cosine, const float *sine,
           size batch, size tokens, size query_heads, size kv_heads, size d, float eps, float factor)
{
    size groups = query_heads / kv_heads, all = query_heads + 2 * kv_heads;
    THREADS for (size row = 0; row < batch * tokens; row++) {
        size b = row / tokens, t = row % tokens;
        const float *cos = cosine + t * d / 2, *sin = sine + t * d / 2;
        const E *in = qkv + row * all * d;
        float *s = scale + row * (query_heads + kv_heads);
        for (size h = 0; h < query_heads; h++, in += d) {
            E *out = q + (((b * kv_heads + h / groups) * tokens + t) * groups + h % groups) * d;
            *s++ = turn(in, out, cos, sin, d / 2, eps, factor);
        }
        for (size h = 0; h < kv_heads; h++, in += d)
            *s++ = turn(in, k + ((b * kv_heads + h) * tokens + t) * d, cos, sin, d / 2, eps, 1);
        for (size h = 0; h < kv_heads; h++, in += d) {
            E *out = v + ((b * kv_heads + h) * tokens + t) * d;
            const E *extra = more + (row * kv_heads + h) * d;
            if (more) { VECTOR for (size i = 0; i < d; i++) out[i] = put(get(in[i]) + get(extra[i])); }
            else memcpy(out, in, d * sizeof(E));
        }
    }
}

void heads_backward(const E *dq, const E *dk, const E *dv, const E *q, const E *k, const float *scale, E *dqkv,
                    const float *cosine, const float *sine, size batch, size tokens, size query_heads, size kv_heads,
                    size d, float factor)
{
    size groups = query_heads / kv_heads, all = query_heads + 2 * kv_heads;
    THREADS for (size row = 0; row < batch * tokens; row++) {
        size b = row / tokens, t = row % tokens;
        const float *cos = cosine + t * d / 2, *sin = sine + t * d / 2;
        E *out = dqkv + row * all * d;
        const float *s = scale + row * (query_heads + kv_heads);
        for (size h = 0; h < query_heads; h++, out += d) {
            size place = (((b * kv_heads + h / groups) * tokens + t) * groups + h % groups) * d;
            turn_back(dq + place, q + place, out, cos, sin, d / 2, *s++, factor);
        }
        for (size h = 0; h < kv_heads; h++, out += d) {
            size place = ((b * kv_heads + h) * tokens + t) * d;
            turn_back(dk + place, k + place, out, cos, sin, d / 2, *s++, 1);
        }
        for (size h = 0; h < kv_heads; h++, out += d)
            memcpy(out, dv + ((b * kv_heads + h) * tokens + t) * d, d * sizeof(E));
    }
}

/* `seen` up to a multiple of 32: the rest of a vector costs nothing, one by one it costs as much as all before. */
static inline size whole_vectors(size seen, size columns)
{
    size end = (seen + 31) / 32 * 32;
    return end < columns ? end : columns;
}

/* Causal softmax of a block of scores, in place. Row i of each of the `count` matrices belongs to token
   first + i / groups, and sees the columns up to that one; the others become 0. Scores are multiplied by `factor`, and
   then lie within +-bound, as QK-norm holds them: no maximum needs to be taken out before exponentials are. */
void causal_softmax(E *scores, size count, size rows, size columns, size first, size groups, float factor, float bound)
{
    THREADS for (size n = 0; n < count * rows; n++) {
        E *x = scores + n * columns;
        size seen = first + n % rows / groups + 1, end = whole_vectors(seen, columns);
        float e[columns], sum = 0;
        SUM(sum) for (size i = 0; i < end; i++) {
            e[i] = i < seen ? exponential(get(x[i]) * factor - bound) : 0;
            sum += e[i];
        }
        float one = 1 / sum;
        VECTOR for (size i = 0; i < end; i++) x[i] = put(e[i] * one);
        memset(x + end, 0, (columns - end) * sizeof(E));
    }
}

/* dS = factor P (dP - sum(P dP)) in place of dP. */
void causal_softmax_backward(const E *probabilities, E *grad, size count, size rows, size columns, size first,
                             size groups, float factor)
{
    THREADS for (size n = 0; n < count * rows; n++) {
        const E *p = probabilities + n * columns;
        E *g = grad + n * columns;
        size seen = first + n % rows / groups + 1, end = whole_vectors(seen, columns);
        float dot = 0;
        SUM(dot) for (size i = 0; i < end; i++) dot += get(p[i]) * get(g[i]);
        VECTOR for (size i = 0; i < end; i++) g[i] = put(factor * get(p[i]) * (get(g[i]) - dot));
        memset(g + end, 0, (columns - end) * sizeof(E));
    }
}

/* Loss and gradient of a chunk of logits before the cap, in place: loss.py has the formula. Capped logits lie within
   +-cap, so no maximum needs to be taken out before exponentials are. */
void capped_nll(E *logits, const int64_t *target, const float *weight, float *loss, size rows, size vocabulary,
                float cap)
{
    THREADS for (size row = 0; row < rows; row++) {
        E *z = logits + row * vocabulary;
        float s[vocabulary], e[vocabulary], sum = 0, w = weight[row];
        SUM(sum) for (size i = 0; i < vocabulary; i++) {
            float x = get(z[i]) * (2 / cap), small = exponential(-fabsf(x)); /* a sigmoid of either sign, from e^-|x| */
            s[i] = (x < 0 ? small : 1) / (1 + small);
            sum += e[i] = exponential(2 * cap * s[i] - cap);
        }
        size t = target[row];
        loss[row] = w * (logf(sum) - (2 * cap * s[t] - cap));
        float slope = 4 * s[t] * (1 - s[t]) * (e[t] / sum - 1) * w, one = 4 * w / sum;
        VECTOR for (size i = 0; i < vocabulary; i++) z[i] = put(one * e[i] * s[i] * (1 - s[i]));
        z[t] = put(slope);
    }
}

/* total += part */
void accumulate(float *total, const E *part, size n)
{
    THREADS for (size block = 0; block < (n + 4095) / 4096; block++) {
        size end = block * 4096 + 4096 < n ? block * 4096 + 4096 : n;
        VECTOR for (size i = block * 4096; i < end; i++) total[i] += get(part[i]);
    }
}

/* One step of AdamW; optim.py has the page to read. */
void adamw(float *weight, const float *grad, float *mean, float *square, size n, float beta1, float beta2,
           float keep, float rate, float correction, float eps)
{
    THREADS for (size block = 0; block < (n + 4095) / 4096; block++) {
        size end = block * 4096 + 4096 < n ? block * 4096 + 4096 : n;
        VECTOR for (size i = block * 4096; i < end; i++) {
            float g = grad[i], m = mean[i] + (1 - beta1) * (g - mean[i]), v = beta2 * square[i] + (1 - beta2) * g * g;
            mean[i] = m, square[i] = v;
            weight[i] = weight[i] * keep - rate * m / (sqrtf(v) * correction + eps);
        }
    }
}

/* y (columns, rows) = the transpose of x (rows, columns), for each of `count`, by squares of one vector's width. Taking in
   turn from the first and the second half of a list is a perfect shuffle; as many as the width has bits transpose. */
typedef E vector __attribute__((vector_size(64)));
enum { WIDTH = 64 / sizeof(E) };

void transpose(const E *x, E *y, size count, size rows, size columns)
{
    size across = columns / WIDTH, squares = rows / WIDTH * across;
    THREADS for (size n = 0; n < count * squares; n++) {
        size at = n / squares * rows * columns, r = n % squares / across * WIDTH, c = n % across * WIDTH;
        vector a[WIDTH], b[WIDTH];
        for (size i = 0; i < WIDTH; i++) memcpy(a + i, x + at + (r + i) * columns + c, 64);
        for (size bit = 1; bit < WIDTH; bit *= 2) {
            for (size i = 0; i < WIDTH / 2; i++) {
                b[2 * i] = __builtin_shufflevector(a[i], a[i + WIDTH / 2], FIRST_HALVES);
                b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + WIDTH / 2], SECOND_HALVES);
            }
            memcpy(a, b, sizeof a);
        }
        for (size i = 0; i < WIDTH; i++) memcpy(y + at + (c + i) * rows + r, a + i, 64);
    }
}

/* Muon's running mean, and the mean looked at one step ahead. */
void momentum(const float *grad, float *mean, E *ahead, size n, float beta)
{
    THREADS for (size block = 0; block < (n + 4095) / 4096; block++) {
        size end = block * 4096 + 4096 < n ? block * 4096 + 4096 : n;
        VECTOR for (size i = block * 4096; i < end; i++) {
            float m = mean[i] = mean[i] + (1 - beta) * (grad[i] - mean[i]);
            ahead[i] = put(grad[i] + beta * (m - grad[i]));
        }
    }
}

/* weight = keep weight - rate update */
void descend(float *weight, const E *update, size n, float keep, float rate)
{
    THREADS for (size block = 0; block < (n + 4095) / 4096; block++) {
        size end = block * 4096 + 4096 < n ? block * 4096 + 4096 : n;
        VECTOR for (size i = block * 4096; i < end; i++) weight[i] = weight[i] * keep - rate * get(update[i]);
    }
}
