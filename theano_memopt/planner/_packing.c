/* The dive of placing.py in C: the same words, the same order of events, the same nodes. Read that file first;
   what is said there is not said again here. One function, no numpy, no state between calls but the memory passed in.

       dive(births, deaths, sizes, ranks, sections, capacity, limit, seconds, memory, prunings) -> (status, nodes, offsets or None)

   births, deaths, sizes, ranks are arrays of 64-bit integers, memory is a writable array of 64-bit unsigned ones. Seconds below 0
   mean no cap. `prunings` are the bits APART .. MEMORY, set for those that are on. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PLACED (INT64_MAX / 2) /* `lowest` of those that are placed: one comparison then passes them over */
#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
enum { APART = 1, LIFT = 2, WASTE = 4, TWINS = 8, MEMORY = 16 };
enum { FOUND = 1, EXHAUSTED = 0, CUT = -1, NO_MEMORY = -2, INTERRUPTED = -3 };

typedef struct {
    int64_t first, last, section, spot, next, changes, placed, scan;
    int64_t choices, count; /* choices[choices .. choices + count) of the search */
    uint64_t key;
} Frame;

typedef struct {
    int64_t *where;
    int64_t value;
} Change;

typedef struct {
    int64_t count, sections, capacity, prunings;
    const int64_t *births, *deaths, *sizes, *ranks;
    uint64_t *memory;
    uint64_t remembered;
    int64_t *living_at, *living; /* those alive in section s: living[living_at[s] .. living_at[s + 1]) */
    int64_t *floors, *rests, *crossing, *lowest, *offsets, *placed, *queue, *tops;
    uint64_t *names, *weights, *waiting;
    char *queued;
    int64_t placed_count, queue_count;
    Change *changes;
    int64_t changes_count, changes_room;
    Frame *frames;
    int64_t frames_count, frames_room;
    int64_t *choices;
    int64_t choices_count, choices_room;
    int out_of_memory;
} Search;

static uint64_t scatter(uint64_t value) {
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* Make room for one more in a growing array; on failure the search stops with NO_MEMORY. */
static int grow(Search *z, void **array, int64_t count, int64_t *room, size_t width) {
    if (count < *room) return 1;
    int64_t wanted = *room ? 2 * *room : 1024;
    void *larger = realloc(*array, (size_t)wanted * width);
    if (!larger) {
        z->out_of_memory = 1;
        return 0;
    }
    *array = larger;
    *room = wanted;
    return 1;
}

static int change(Search *z, int64_t *where, int64_t value) {
    if (!grow(z, (void **)&z->changes, z->changes_count, &z->changes_room, sizeof(Change))) return 0;
    z->changes[z->changes_count].where = where;
    z->changes[z->changes_count++].value = *where;
    *where = value;
    return 1;
}

static void enqueue(Search *z, int64_t section) {
    if (!z->queued[section]) {
        z->queued[section] = 1;
        z->queue[z->queue_count++ % z->sections] = section; /* each waits at most once, so a ring is enough */
    }
}

static int raise_floor(Search *z, int64_t section, int64_t floor) {
    if (!change(z, &z->floors[section], floor)) return 0;
    if (floor + z->rests[section] > z->capacity) return 0;
    for (int64_t i = z->living_at[section]; i < z->living_at[section + 1]; i++) {
        int64_t b = z->living[i];
        if (z->lowest[b] < floor) {
            if (!change(z, &z->lowest[b], floor)) return 0;
            for (int64_t s = z->births[b]; s < z->deaths[b]; s++) enqueue(z, s);
        }
    }
    return 1;
}

static void clear_queue(Search *z) {
    memset(z->queued, 0, (size_t)z->sections);
    z->queue_count = 0;
}

static int settle(Search *z) {
    for (int64_t at = 0; at < z->queue_count; at++) {
        int64_t section = z->queue[at % z->sections];
        z->queued[section] = 0;
        if (!z->rests[section] || !(z->prunings & LIFT)) continue;
        int64_t least = INT64_MAX;
        for (int64_t i = z->living_at[section]; i < z->living_at[section + 1]; i++) {
            int64_t b = z->living[i];
            if (z->lowest[b] < least) least = z->lowest[b];
        }
        if (least > z->floors[section] && !raise_floor(z, section, least)) return 0;
    }
    z->queue_count = 0;
    return 1;
}

static int place(Search *z, int64_t buffer, int64_t spot) {
    int64_t born = z->births[buffer], dead = z->deaths[buffer], size = z->sizes[buffer];
    z->offsets[buffer] = spot;
    z->placed[z->placed_count++] = buffer;
    z->waiting[born] -= z->names[buffer];
    for (int64_t s = born; s < dead; s++) {
        z->rests[s] -= size;
        z->crossing[s] -= s > born;
    }
    if (!change(z, &z->lowest[buffer], PLACED)) return 0;
    for (int64_t s = born; s < dead; s++) {
        if (z->rests[s] && !raise_floor(z, s, spot + size)) return 0;
        enqueue(z, s);
    }
    return settle(z);
}

static void undo(Search *z, const Frame *frame) {
    if (z->queue_count) clear_queue(z);
    while (z->changes_count > frame->changes) {
        z->changes_count--;
        *z->changes[z->changes_count].where = z->changes[z->changes_count].value;
    }
    while (z->placed_count > frame->placed) {
        int64_t buffer = z->placed[--z->placed_count], born = z->births[buffer];
        z->offsets[buffer] = -1;
        z->waiting[born] += z->names[buffer];
        for (int64_t s = born; s < z->deaths[buffer]; s++) {
            z->rests[s] += z->sizes[buffer];
            z->crossing[s] += s > born;
        }
    }
}

static int64_t floor_over_waste(Search *z, const Frame *frame) {
    int64_t section = frame->section, spot = frame->spot, raised = z->capacity + 1;
    if (spot + 1 + z->rests[section] > z->capacity) return -1;
    if (!(z->prunings & WASTE)) return spot + 1;
    for (int64_t i = z->living_at[section]; i < z->living_at[section + 1]; i++) {
        int64_t b = z->living[i];
        if (z->lowest[b] > spot && z->lowest[b] < raised) raised = z->lowest[b];
    }
    int64_t first = INT64_MAX, last = 0;
    for (int64_t c = 0; c < frame->count; c++) {
        int64_t b = z->choices[frame->choices + c];
        if (z->births[b] < first) first = z->births[b];
        if (z->deaths[b] > last) last = z->deaths[b];
    }
    for (int64_t s = first; s < last; s++) {
        z->tops[s] = z->capacity + 1;
        for (int64_t i = z->living_at[s]; i < z->living_at[s + 1]; i++) {
            int64_t b = z->living[i];
            if (z->lowest[b] + z->sizes[b] < z->tops[s] && !(z->births[b] <= section && section < z->deaths[b]))
                z->tops[s] = z->lowest[b] + z->sizes[b];
        }
    }
    for (int64_t c = 0; c < frame->count; c++) {
        int64_t b = z->choices[frame->choices + c];
        for (int64_t s = z->births[b]; s < z->deaths[b]; s++)
            if (z->tops[s] < raised) raised = z->tops[s];
    }
    return raised + z->rests[section] <= z->capacity ? raised : -1;
}

static int twins(const Search *z, int64_t a, int64_t b) {
    return (z->prunings & TWINS) && z->births[a] == z->births[b] && z->deaths[a] == z->deaths[b] && z->sizes[a] == z->sizes[b];
}

static int open_frame(Search *z, Frame *frame) {
    uint64_t total = (uint64_t)z->capacity * GOLDEN;
    int64_t spot = INT64_MAX, fewest = -1;
    for (int64_t s = frame->first; s < frame->last; s++) {
        total += (uint64_t)z->floors[s] * z->weights[s] + z->waiting[s];
        if (z->rests[s] && z->floors[s] < spot) spot = z->floors[s];
    }
    frame->key = scatter(total) | 1;
    if ((z->prunings & MEMORY) && z->memory[(frame->key >> 20) % z->remembered] == frame->key) return 0;
    frame->spot = spot;
    for (int64_t s = frame->first; s < frame->last; s++) {
        if (z->floors[s] != spot || !z->rests[s]) continue;
        int64_t count = 0;
        for (int64_t i = z->living_at[s]; i < z->living_at[s + 1]; i++) {
            int64_t b = z->living[i];
            count += z->lowest[b] == spot;
        }
        if (fewest < 0 || count < fewest || (count == fewest && z->rests[s] > z->rests[frame->section])) {
            fewest = count;
            frame->section = s;
        }
    }
    frame->choices = z->choices_count;
    frame->count = 0;
    for (int64_t i = z->living_at[frame->section]; i < z->living_at[frame->section + 1]; i++) { /* insertion by rank */
        int64_t b = z->living[i];
        if (z->lowest[b] != spot) continue;
        if (!grow(z, (void **)&z->choices, z->choices_count, &z->choices_room, sizeof(int64_t))) return 0;
        int64_t *choices = z->choices + frame->choices, at = frame->count++;
        for (; at > 0 && z->ranks[choices[at - 1]] > z->ranks[b]; at--) choices[at] = choices[at - 1];
        choices[at] = b;
        z->choices_count++;
    }
    int64_t *choices = z->choices + frame->choices, kept = 0;
    for (int64_t c = 0; c < frame->count; c++) {
        int64_t known = 0;
        while (known < kept && !twins(z, choices[c], choices[known])) known++;
        if (known == kept) choices[kept++] = choices[c];
    }
    frame->count = kept;
    z->choices_count = frame->choices + kept;
    frame->next = 0;
    frame->changes = z->changes_count;
    frame->placed = z->placed_count;
    return 1;
}

static int advance(Search *z, Frame *frame) {
    frame->scan = frame->first;
    while (frame->next < frame->count) {
        undo(z, frame);
        z->choices_count = frame->choices + frame->count; /* choices of finished stretches may still lie above */
        frame->next++;
        if (place(z, z->choices[frame->choices + frame->next - 1], frame->spot)) return 1;
        if (z->out_of_memory) return 0;
    }
    undo(z, frame);
    if (frame->next > frame->count) return 0;
    frame->next++;
    int64_t raised = floor_over_waste(z, frame);
    if (raised >= 0 && raise_floor(z, frame->section, raised) && settle(z)) return 1;
    undo(z, frame);
    return 0;
}

static double now(void) {
    struct timespec moment;
    timespec_get(&moment, TIME_UTC);
    return (double)moment.tv_sec + 1e-9 * (double)moment.tv_nsec;
}

static int run(Search *z, int64_t limit, double seconds, int64_t *nodes) {
    double until = now() + seconds;
    for (int64_t s = 0; s < z->sections; s++)
        if (z->rests[s] > z->capacity) return EXHAUSTED;
    if (!grow(z, (void **)&z->frames, 0, &z->frames_room, sizeof(Frame))) return NO_MEMORY;
    memset(&z->frames[0], 0, sizeof(Frame));
    z->frames[0].last = z->sections;
    z->frames[0].next = 1;
    z->frames_count = 1;
    for (;;) {
        Frame *top = &z->frames[z->frames_count - 1];
        int64_t first = top->scan;
        while (first < top->last && z->rests[first] == 0) first++;
        if (first == top->last) {
            int64_t last = top->last;
            if (--z->frames_count == 0) return FOUND;
            z->frames[z->frames_count - 1].scan = last;
            continue;
        }
        int64_t end = first + 1;
        while (end < top->last && (z->crossing[end] || !(z->prunings & APART))) end++;
        ++*nodes;
        if (*nodes > limit || (seconds >= 0 && *nodes % 256 == 0 && now() > until)) return CUT;
        if (*nodes % 4096 == 0 && PyErr_CheckSignals()) return INTERRUPTED;
        if (!grow(z, (void **)&z->frames, z->frames_count, &z->frames_room, sizeof(Frame))) return NO_MEMORY;
        Frame *frame = &z->frames[z->frames_count];
        memset(frame, 0, sizeof(Frame));
        frame->first = first;
        frame->last = end;
        if (open_frame(z, frame)) z->frames_count++;
        while (!z->out_of_memory && !advance(z, &z->frames[z->frames_count - 1])) {
            Frame *failed = &z->frames[--z->frames_count];
            if (z->frames_count == 0) return z->out_of_memory ? NO_MEMORY : EXHAUSTED;
            if (z->out_of_memory) break;
            z->memory[(failed->key >> 20) % z->remembered] = failed->key;
            z->choices_count = failed->choices;
        }
        if (z->out_of_memory) return NO_MEMORY;
    }
}

static void *zeros(Search *z, int64_t count) {
    void *array = calloc(count > 0 ? (size_t)count : 1, sizeof(int64_t));
    if (!array) z->out_of_memory = 1;
    return array;
}

static void release(Search *z) {
    free(z->living_at), free(z->living), free(z->floors), free(z->rests), free(z->crossing), free(z->lowest), free(z->offsets);
    free(z->placed), free(z->queue), free(z->tops), free(z->names), free(z->weights), free(z->waiting), free(z->queued);
    free(z->changes), free(z->frames), free(z->choices);
}

static int prepare(Search *z) {
    int64_t n = z->count, sections = z->sections, total = 0;
    z->living_at = zeros(z, sections + 2);
    z->floors = zeros(z, sections), z->rests = zeros(z, sections), z->crossing = zeros(z, sections + 1);
    z->lowest = zeros(z, n), z->offsets = zeros(z, n), z->placed = zeros(z, n), z->names = zeros(z, n);
    z->queue = zeros(z, sections), z->tops = zeros(z, sections), z->weights = zeros(z, sections), z->waiting = zeros(z, sections);
    z->queued = calloc((size_t)sections + 1, 1);
    for (int64_t b = 0; b < n; b++) total += z->deaths[b] - z->births[b];
    z->living = zeros(z, total);
    if (z->out_of_memory || !z->queued) return 0;
    for (int64_t b = 0; b < n; b++)
        for (int64_t s = z->births[b]; s < z->deaths[b]; s++) z->living_at[s + 2]++;
    for (int64_t s = 0; s < sections; s++) z->living_at[s + 2] += z->living_at[s + 1];
    for (int64_t b = 0; b < n; b++) {
        z->offsets[b] = -1;
        z->names[b] = scatter((uint64_t)(b + 1) * GOLDEN);
        z->waiting[z->births[b]] += z->names[b];
        for (int64_t s = z->births[b]; s < z->deaths[b]; s++) {
            z->living[z->living_at[s + 1]++] = b;
            z->rests[s] += z->sizes[b];
            z->crossing[s] += s > z->births[b];
        }
    }
    for (int64_t s = 0; s < sections; s++) z->weights[s] = scatter((uint64_t)(s + 1 + n) * GOLDEN) | 1;
    return 1;
}

static PyObject *answer(const Search *z, int status, int64_t nodes) {
    if (status == INTERRUPTED) return NULL;
    if (status == NO_MEMORY) return PyErr_NoMemory();
    if (status != FOUND) return Py_BuildValue("iLO", status, (long long)nodes, Py_None);
    PyObject *offsets = PyList_New((Py_ssize_t)z->count);
    if (!offsets) return NULL;
    for (int64_t b = 0; b < z->count; b++) {
        PyObject *offset = PyLong_FromLongLong(z->offsets[b]);
        if (!offset) {
            Py_DECREF(offsets);
            return NULL;
        }
        PyList_SET_ITEM(offsets, (Py_ssize_t)b, offset);
    }
    return Py_BuildValue("iLN", status, (long long)nodes, offsets);
}

/* A kernel must not be crashed by its caller: lengths, spans, sizes and the greatest sum are checked here. */
static const char *complaint(const Search *z, const Py_buffer *views) {
    int64_t sum = 0;
    for (int i = 1; i < 4; i++)
        if (views[i].len != views[0].len) return "births, deaths, sizes and ranks must be of one length";
    if (views[0].len % 8 || views[4].len % 8 || views[4].len == 0) return "arrays of 64-bit numbers are needed, the memory not empty";
    if (z->sections < 0 || z->sections > INT64_MAX / 64 || z->capacity < 0 || z->capacity > INT64_MAX / 4) return "sections or capacity out of range";
    for (int64_t b = 0; b < z->count; b++) {
        if (z->births[b] < 0 || z->births[b] >= z->deaths[b] || z->deaths[b] > z->sections) return "a span lies outside of the sections";
        if (z->sizes[b] < 1 || z->sizes[b] > INT64_MAX / 4 - sum) return "sizes must be above 0 and their sum below 2**61";
        sum += z->sizes[b];
    }
    return NULL;
}

static PyObject *dive(PyObject *module, PyObject *args) {
    Py_buffer views[5];
    long long sections, capacity, limit, prunings;
    double seconds;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*y*LLLdw*L", &views[0], &views[1], &views[2], &views[3], &sections, &capacity, &limit, &seconds,
                          &views[4], &prunings))
        return NULL;
    Search z;
    memset(&z, 0, sizeof z);
    z.count = (int64_t)(views[0].len / 8), z.sections = sections, z.capacity = capacity, z.prunings = prunings;
    z.births = views[0].buf, z.deaths = views[1].buf, z.sizes = views[2].buf, z.ranks = views[3].buf;
    z.memory = views[4].buf, z.remembered = (uint64_t)(views[4].len / 8);
    PyObject *result = NULL;
    const char *wrong = complaint(&z, views);
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
    } else {
        int64_t nodes = 0;
        int status = prepare(&z) ? run(&z, limit, seconds, &nodes) : NO_MEMORY;
        result = answer(&z, status, nodes);
    }
    release(&z);
    for (int i = 0; i < 5; i++) PyBuffer_Release(&views[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"dive", dive, METH_VARARGS, "dive(births, deaths, sizes, ranks, sections, capacity, limit, seconds, memory, prunings) -> (status, nodes, offsets or None)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_packing", "The dive of placing.py, compiled.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__packing(void) { return PyModule_Create(&definition); }
