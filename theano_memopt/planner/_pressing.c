/* The press of pressing.py in C: the same words, the same order of events, the same turns. Read that file first;
   what is said there is not said again here. One function, no numpy, no state between calls.

       press(births, deaths, sizes, offsets, goal, limit, seconds) -> turns

   All four are arrays of 64-bit integers; offsets is writable, and holds the lowest placement afterwards. Seconds below 0 mean no cap. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
#define MOST_ROWS (INT64_C(1) << 16)
#define MOST_BUFFERS (INT64_C(1) << 11)
#define SCALE (INT64_C(1) << 17)
#define DEARER 8
#define DEAREST (INT64_C(1) << 16)
#define STAGE 4
enum { DONE = 1, NO_MEMORY = -2, INTERRUPTED = -3 };

typedef struct {
    int64_t count;
    const int64_t *births, *deaths, *sizes;
    int64_t *best, *offsets;
    int64_t *near_at, *near, *pairs; /* those that live together with b: near[near_at[b] .. near_at[b + 1]), beside each the index of the price */
    int64_t *prices, *bends, *clashes, *clashing, *seat;
    int64_t clashing_count;
    uint64_t draws;
} Press;

static int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t draw(Press *z, int64_t count) {
    uint64_t value = ++z->draws * GOLDEN; /* scatter, as in placing.py */
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    value ^= value >> 31;
    return (int64_t)(((value >> 32) * (uint64_t)count) >> 32);
}

static int64_t overlap(const Press *z, int64_t a, int64_t b) {
    return least_of(z->offsets[a] + z->sizes[a], z->offsets[b] + z->sizes[b]) - most_of(z->offsets[a], z->offsets[b]);
}

static int64_t beginning(const Press *z, int64_t a, int64_t b) { return SCALE / least_of(z->sizes[a], z->sizes[b]); }

static void take_seat(Press *z, int64_t b) {
    if (z->clashes[b] && z->seat[b] < 0) {
        z->seat[b] = z->clashing_count;
        z->clashing[z->clashing_count++] = b;
    } else if (!z->clashes[b] && z->seat[b] >= 0) {
        int64_t other = z->clashing[--z->clashing_count];
        z->clashing[z->seat[b]] = other;
        z->seat[other] = z->seat[b];
        z->seat[b] = -1;
    }
}

static void count_clashes(Press *z, int64_t b, int64_t change) {
    for (int64_t i = z->near_at[b]; i < z->near_at[b + 1]; i++) {
        int64_t a = z->near[i];
        if (overlap(z, a, b) <= 0) continue;
        z->clashes[a] += change;
        take_seat(z, a);
        z->clashes[b] += change;
        take_seat(z, b);
    }
}

static void move(Press *z, int64_t b, int64_t place) {
    count_clashes(z, b, -1);
    z->offsets[b] = place;
    count_clashes(z, b, 1);
}

static int64_t cheapest(Press *z, int64_t b, int64_t last, int64_t bound) {
    const int64_t *offsets = z->offsets, *sizes = z->sizes;
    int64_t *bends = z->bends, size = sizes[b], cost = 0, slope = 0, place = -1, least = bound - 1, equal = 0;
    memset(bends, 0, (size_t)(last + 1) * sizeof(int64_t));
    for (int64_t i = z->near_at[b]; i < z->near_at[b + 1]; i++) {
        int64_t a = z->near[i], price = z->prices[z->pairs[i]], low = offsets[a], high = low + sizes[a], both = least_of(sizes[a], size);
        const int64_t rows[4] = {low - size, low - size + both, high - both, high}, changes[4] = {price, -price, -price, price};
        for (int k = 0; k < 4; k++) {
            if (rows[k] <= 0) {
                cost -= changes[k] * rows[k];
                slope += changes[k];
            } else if (rows[k] <= last) {
                bends[rows[k]] += changes[k];
            }
        }
    }
    for (int64_t row = 0; row <= last; row++) {
        if (cost <= least && (bends[row] > 0 || row == 0 || row == last)) {
            equal = cost == least ? equal + 1 : 1;
            least = cost;
            if (draw(z, equal) == 0) place = row;
        }
        slope += bends[row];
        cost += slope;
    }
    return place;
}

static void turn(Press *z, int64_t b, int64_t capacity) {
    int64_t present = 0;
    for (int64_t i = z->near_at[b]; i < z->near_at[b + 1]; i++) present += z->prices[z->pairs[i]] * most_of(0, overlap(z, z->near[i], b));
    int64_t place = cheapest(z, b, capacity - z->sizes[b], present);
    if (place >= 0) {
        move(z, b, place);
        return;
    }
    for (int64_t i = z->near_at[b]; i < z->near_at[b + 1]; i++) {
        if (overlap(z, z->near[i], b) <= 0) continue;
        int64_t first = beginning(z, z->near[i], b), *price = &z->prices[z->pairs[i]];
        if (*price < DEAREST * first) *price += most_of(1, first / DEARER);
    }
}

static double now(void) {
    struct timespec moment;
    timespec_get(&moment, TIME_UTC);
    return (double)moment.tv_sec + 1e-9 * (double)moment.tv_nsec;
}

static int run(Press *z, int64_t goal, int64_t limit, double seconds, int64_t *turns) {
    double until = now() + seconds;
    int64_t capacity = 0;
    while (*turns < limit) {
        if (z->clashing_count == 0) {
            int64_t height = 0;
            for (int64_t b = 0; b < z->count; b++) {
                z->best[b] = z->offsets[b];
                height = most_of(height, z->offsets[b] + z->sizes[b]);
            }
            if (height <= goal) break;
            capacity = most_of(goal, height - 1 - (height - goal) / STAGE);
            for (int64_t b = 0; b < z->count; b++)
                if (z->offsets[b] + z->sizes[b] > capacity) move(z, b, capacity - z->sizes[b]);
            continue;
        }
        if (seconds >= 0 && *turns % 256 == 0 && now() > until) break;
        ++*turns;
        if (*turns % 4096 == 0 && PyErr_CheckSignals()) return INTERRUPTED;
        turn(z, z->clashing[draw(z, z->clashing_count)], capacity);
    }
    return DONE;
}

static int64_t *zeros(int64_t count, int *enough) {
    int64_t *array = calloc(count > 0 ? (size_t)count : 1, sizeof(int64_t));
    if (!array) *enough = 0;
    return array;
}

static void release(Press *z) {
    free(z->offsets), free(z->near_at), free(z->near), free(z->pairs), free(z->prices), free(z->bends), free(z->clashes), free(z->clashing);
    free(z->seat);
}

static int together(const Press *z, int64_t a, int64_t b) { return z->births[a] < z->deaths[b] && z->births[b] < z->deaths[a]; }

static int prepare(Press *z) {
    int64_t n = z->count, height = 0;
    int enough = 1;
    z->offsets = zeros(n, &enough), z->near_at = zeros(n + 2, &enough);
    z->clashes = zeros(n, &enough), z->clashing = zeros(n, &enough), z->seat = zeros(n, &enough);
    if (!enough) return 0;
    for (int64_t b = 0; b < n; b++) {
        z->offsets[b] = z->best[b];
        height = most_of(height, z->best[b] + z->sizes[b]);
        z->seat[b] = -1;
        for (int64_t a = 0; a < n; a++) z->near_at[b + 2] += a != b && together(z, a, b);
    }
    for (int64_t b = 0; b < n; b++) z->near_at[b + 2] += z->near_at[b + 1];
    int64_t total = z->near_at[n + 1], pair = 0;
    z->near = zeros(total, &enough), z->pairs = zeros(total, &enough), z->prices = zeros(total / 2, &enough);
    z->bends = zeros(height + 1, &enough);
    if (!enough) return 0;
    for (int64_t b = 0; b < n; b++) {
        for (int64_t a = 0; a < b; a++) {
            if (!together(z, a, b)) continue;
            int64_t from_a = z->near_at[a + 1]++, from_b = z->near_at[b + 1]++;
            z->near[from_a] = b, z->near[from_b] = a;
            z->pairs[from_a] = z->pairs[from_b] = pair;
            z->prices[pair++] = beginning(z, a, b);
        }
    }
    return 1;
}

/* A kernel must not be crashed by its caller: lengths, spans, sizes, offsets and the goal are checked here. */
static const char *complaint(const Press *z, const Py_buffer *views, int64_t goal) {
    for (int i = 1; i < 4; i++)
        if (views[i].len != views[0].len) return "births, deaths, sizes and offsets must be of one length";
    if (views[0].len % 8) return "arrays of 64-bit numbers are needed";
    if (z->count > MOST_BUFFERS) return "too many buffers";
    if (goal < 0) return "a goal is 0 or more";
    for (int64_t b = 0; b < z->count; b++) {
        if (z->births[b] >= z->deaths[b]) return "a span is empty";
        if (z->sizes[b] < 1 || z->sizes[b] > MOST_ROWS || z->sizes[b] > goal) return "sizes must be above 0 and no larger than the goal";
        if (z->best[b] < 0 || z->best[b] > MOST_ROWS - z->sizes[b]) return "an offset is out of range";
    }
    for (int64_t b = 0; b < z->count; b++)
        for (int64_t a = 0; a < b; a++)
            if (together(z, a, b) && z->best[a] < z->best[b] + z->sizes[b] && z->best[b] < z->best[a] + z->sizes[a]) return "buffers overlap";
    return NULL;
}

static PyObject *press(PyObject *module, PyObject *args) {
    Py_buffer views[4];
    long long goal, limit;
    double seconds;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*w*LLd", &views[0], &views[1], &views[2], &views[3], &goal, &limit, &seconds)) return NULL;
    Press z;
    memset(&z, 0, sizeof z);
    z.count = (int64_t)(views[0].len / 8);
    z.births = views[0].buf, z.deaths = views[1].buf, z.sizes = views[2].buf, z.best = views[3].buf;
    PyObject *result = NULL;
    const char *wrong = complaint(&z, views, goal);
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
    } else {
        int64_t turns = 0;
        int status = prepare(&z) ? run(&z, goal, limit, seconds, &turns) : NO_MEMORY;
        if (status == NO_MEMORY) PyErr_NoMemory();
        if (status == DONE) result = PyLong_FromLongLong(turns);
    }
    release(&z);
    for (int i = 0; i < 4; i++) PyBuffer_Release(&views[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"press", press, METH_VARARGS, "press(births, deaths, sizes, offsets, goal, limit, seconds) -> turns"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_pressing", "The press of pressing.py, compiled.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__pressing(void) { return PyModule_Create(&definition); }
