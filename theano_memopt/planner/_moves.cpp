// The compiled twin of moves.py: the same moves in the same order, kept or not alike. Read that file first; the reasons stand
// there. kernel.py calls it through ctypes, and keeps graphs away from it whose excess could pass 64 bits.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

using Bytes = std::int64_t;
using Word = std::uint64_t;
using Lists = std::vector<std::vector<int>>;

constexpr int kLeastSlack = 8, kSlacks = 4, kTries = 24, kNotRead = -1;

Word scramble(Word x) {  // splitmix64
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

Lists unpack(const int* start, const int* item, int count) {
    Lists lists(count);
    for (int i = 0; i < count; ++i) lists[i].assign(item + start[i], item + start[i + 1]);
    return lists;
}

// What does not change while an order is moved about.
struct Problem {
    int tasks, buffers;
    std::vector<Bytes> size, allocates, transient;
    std::vector<char> pinned;
    std::vector<int> producer;
    Lists readers, reads, before, behind;

    void finish() {
        allocates.assign(tasks, 0), transient.assign(tasks, 0), reads.resize(tasks), behind.resize(tasks);
        for (int b = 0; b < buffers; ++b) {
            if (producer[b] < 0 || size[b] == 0) continue;
            allocates[producer[b]] += size[b];
            if (pinned[b]) continue;
            if (readers[b].empty()) transient[producer[b]] += size[b];
            for (int reader : readers[b]) reads[reader].push_back(b);
        }
        for (int t = 0; t < tasks; ++t)
            for (int p : before[t]) behind[p].push_back(t);
    }
};

class MovedOrder {
public:
    MovedOrder(Problem&& problem, const int* order, Word seed)
        : problem_(std::move(problem)), order_(order, order + problem_.tasks), place_(problem_.tasks), last_read_(problem_.buffers, kNotRead),
          in_group_(problem_.tasks, 0), seen_(problem_.buffers, 0), heights_(problem_.tasks, 0), resting_(problem_.tasks, 0), seed_(seed) {
        for (int step = 0; step < problem_.tasks; ++step) place_[order_[step]] = step;
        for (int b = 0; b < problem_.buffers; ++b)
            for (int reader : problem_.readers[b]) last_read_[b] = std::max(last_read_[b], place_[reader]);
        steps_ = order_;
        measure(0, problem_.tasks, INT64_MAX);
        keep(0, problem_.tasks);
    }

    Bytes peak() const { return heights_.empty() ? 0 : *std::max_element(heights_.begin(), heights_.end()); }
    const std::vector<int>& order() const { return order_; }

    Bytes run(Bytes goal, Bytes moves) {
        goal_ = goal;
        excess_ = above(0, problem_.tasks);
        Bytes tried = 0;
        while (excess_ > 0 && tried < moves) {
            ++tried;
            int start = propose();
            if (!steps_.empty()) try_move(start);
        }
        return tried;
    }

private:
    // ---- which move to try: the stretch in its new order is left in `steps_`, the answer is where it begins

    int propose() {
        int hot = hot_step(), which = chance(4);
        if (which < 2) {
            int buffer = live_buffer(hot);
            if (buffer != kNotRead) return aimed(hot, buffer, which);
        }
        return anywhere(hot, chance(4));
    }

    int aimed(int hot, int buffer, int which) {
        int last = last_read_[buffer];
        if (which == 0 || problem_.pinned[buffer] || last == kNotRead) return delay(place_[problem_.producer[buffer]], beyond(hot));
        return hasten(last, before_step(hot));
    }

    int anywhere(int hot, int which) {
        int far = distance(problem_.tasks);
        if (which < 2) {
            int start = hot + 1 - far;
            if (start < 0) return nothing();
            return which == 0 ? delay(start, beyond(hot)) : follow(start, beyond(hot));
        }
        int stop = hot - 1 + far;
        if (stop >= problem_.tasks) return nothing();
        return which == 2 ? hasten(stop, before_step(hot)) : gather(stop, before_step(hot));
    }

    int nothing() {
        steps_.clear();
        return 0;
    }

    int hot_step() {
        int step = chance(problem_.tasks);
        while (heights_[step] <= goal_) step = step + 1 < problem_.tasks ? step + 1 : 0;
        return step;
    }

    int live_buffer(int step) {
        for (int i = 0; i < kTries; ++i) {
            int b = chance(problem_.buffers);
            if (problem_.producer[b] >= 0 && problem_.size[b] && place_[problem_.producer[b]] <= step && (problem_.pinned[b] || last_read_[b] >= step))
                return b;
        }
        return kNotRead;
    }

    int beyond(int hot) { return hot - 1 + distance(problem_.tasks - hot); }
    int before_step(int hot) { return hot + 1 - distance(hot + 1); }

    int distance(int most) {
        int bits = 0;
        while (most >> bits) ++bits;
        int power = chance(bits);
        return std::min(most, (1 << power) + chance(1 << power));
    }

    int chance(int count) {
        ++chances_;
        return int(scramble((seed_ << 40) + chances_) % Word(count));
    }

    // ---- the four moves

    int delay(int start, int stop) {
        split(start, stop, 1, problem_.before);
        return arrange(start, !staying_.empty(), staying_, going_, false);
    }
    int hasten(int stop, int start) {
        split(stop, start, -1, problem_.behind);
        return arrange(start, !staying_.empty(), staying_, going_, true);
    }
    int follow(int start, int stop) {
        split_alone(start, stop, 1, problem_.before);
        return arrange(start, !staying_.empty() && going_.size() > 1, going_, staying_, false);
    }
    int gather(int stop, int start) {
        split_alone(stop, start, -1, problem_.behind);
        return arrange(start, !staying_.empty() && going_.size() > 1, going_, staying_, true);
    }

    int arrange(int start, bool moves, const std::vector<int>& first, const std::vector<int>& second, bool reversed) {
        if (!moves) return nothing();
        steps_ = first;
        steps_.insert(steps_.end(), second.begin(), second.end());
        if (reversed) std::reverse(steps_.begin(), steps_.end());
        return start;
    }

    void split(int from, int to, int way, const Lists& linked) {
        begin_group(order_[from]);
        for (int step = from + way; step != to + way; step += way) {
            int task = order_[step];
            bool hangs = false;
            for (int other : linked[task])
                if (in_group_[other] == group_) {
                    hangs = true;
                    break;
                }
            place_task(task, hangs);
        }
    }

    void split_alone(int from, int to, int way, const Lists& linked) {
        begin_group(order_[from]);
        for (int step = from + way; step != to + way; step += way) {
            int task = order_[step];
            bool some = false, all = true;
            for (int other : linked[task]) {
                if (in_group_[other] == group_) some = true;
                else if (way > 0 ? place_[other] >= from : place_[other] <= from) all = false;
            }
            place_task(task, some && all);
        }
    }

    void begin_group(int task) {
        ++group_;
        in_group_[task] = group_;
        going_.assign(1, task);
        staying_.clear();
    }
    void place_task(int task, bool goes) {
        if (goes) in_group_[task] = group_;
        (goes ? going_ : staying_).push_back(task);
    }

    // ---- keep it or not

    void try_move(int start) {
        int stop = start + int(steps_.size());
        Bytes was = above(start, stop), most = was + (excess_ >> (kLeastSlack + chance(kSlacks)));
        Bytes now = measure(start, stop, most);
        if (now > most) return;
        excess_ += now - was;
        keep(start, stop);
    }

    // The heights of `steps_` and their excess, which may be cut short above `most`.
    Bytes measure(int start, int stop, Bytes most) {
        int count = stop - start;
        freed_.resize(count), new_heights_.resize(count), new_resting_.resize(count);
        ++stamp_;
        for (int i = count; i-- > 0;) {
            Bytes freed = problem_.transient[steps_[i]];
            for (int b : problem_.reads[steps_[i]])
                if (last_read_[b] < stop && seen_[b] != stamp_) seen_[b] = stamp_, freed += problem_.size[b];
            freed_[i] = freed;
        }
        Bytes live = start ? resting_[start - 1] : 0, excess = 0;
        for (int i = 0; i < count; ++i) {
            live += problem_.allocates[steps_[i]];
            new_heights_[i] = live;
            if (live > goal_) excess += live - goal_;
            if (excess > most) break;
            live -= freed_[i];
            new_resting_[i] = live;
        }
        return excess;
    }

    void keep(int start, int stop) {
        for (int step = start; step < stop; ++step) {
            order_[step] = steps_[step - start], place_[order_[step]] = step;
            heights_[step] = new_heights_[step - start], resting_[step] = new_resting_[step - start];
        }
        for (int step = start; step < stop; ++step)  // rising, so that the last reader has the last word
            for (int b : problem_.reads[order_[step]])
                if (last_read_[b] < stop) last_read_[b] = step;
    }

    Bytes above(int start, int stop) const {
        Bytes sum = 0;
        for (int step = start; step < stop; ++step)
            if (heights_[step] > goal_) sum += heights_[step] - goal_;
        return sum;
    }

    const Problem problem_;
    std::vector<int> order_, place_, last_read_, steps_, going_, staying_;
    std::vector<Word> in_group_, seen_;  // stamped with the group, or the measuring, that they belong to
    std::vector<Bytes> heights_, resting_, freed_, new_heights_, new_resting_;
    Bytes goal_ = 0, excess_ = 0;
    Word seed_, chances_ = 0;
    Word group_ = 0, stamp_ = 0;
};

}  // namespace

extern "C" {

MovedOrder* memopt_moved(int tasks, int buffers, const Bytes* size, const char* pinned, const int* producer, const int* reader_start,
                         const int* reader, const int* before_start, const int* before, const int* order, Word seed) {
    Problem problem;
    problem.tasks = tasks, problem.buffers = buffers;
    problem.size.assign(size, size + buffers);
    problem.pinned.assign(pinned, pinned + buffers);
    problem.producer.assign(producer, producer + buffers);
    problem.readers = unpack(reader_start, reader, buffers);
    problem.before = unpack(before_start, before, tasks);
    problem.finish();
    return new MovedOrder(std::move(problem), order, seed);
}
void memopt_moved_free(MovedOrder* moved) { delete moved; }
Bytes memopt_moved_run(MovedOrder* moved, Bytes goal, Bytes moves) { return moved->run(goal, moves); }
Bytes memopt_moved_peak(const MovedOrder* moved) { return moved->peak(); }
void memopt_moved_order(const MovedOrder* moved, int* out) { std::copy(moved->order().begin(), moved->order().end(), out); }
}
