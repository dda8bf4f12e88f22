// The compiled twin of evict.py: the same victims in the same order, so the same sequences. Read that file first; the reasons
// stand there. This file needs no header of Python's: evict_kernel.py calls it through ctypes.
// Scores are made of products, quotients and square roots alone, which round alike everywhere.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

using Bytes = std::int64_t;
using Ticks = std::int64_t;
constexpr int kNever = 1 << 30, kMany = 256;

struct Flat {
    int n, m;
    std::vector<std::vector<int>> reads, writes;
    std::vector<Ticks> ticks;
    std::vector<char> again, in_place, keep;
    std::vector<int> lies_in, producer, overwriter;
    std::vector<Bytes> size;
};

struct Rule {
    int size, distance, cost, hold, ahead;
};

double power(double x, int halves) {
    double result = halves & 1 ? std::sqrt(x) : 1.0;
    for (int i = 0; i < halves >> 1; ++i) result *= x;
    return result;
}

struct Memory {
    int value;  // that it was made for
    Bytes size;
    std::vector<int> holds;
    int waiting = 0;
    bool there = true;
    Memory(int made_for, Bytes bytes) : value(made_for), size(bytes) {}
};

// Marks that are all wiped by beginning anew.
class Marks {
public:
    explicit Marks(int n) : stamp_(n, 0) {}
    void begin() { ++now_; }
    bool mark(int i) {  // false if it was marked already
        if (stamp_[i] == now_) return false;
        stamp_[i] = now_;
        return true;
    }

private:
    std::vector<int> stamp_;
    int now_ = 0;
};

class Simulation {
public:
    Simulation(const Flat& flat, const int* order, Bytes budget, Rule rule, const double* worth, Ticks limit)
        : flat_(flat), order_(order, order + flat.n), budget_(budget), rule_(rule), worth_(worth), limit_(limit), end_(flat.n), uses_(flat.m), holds_(flat.m),
          where_(flat.m, -1), seen_(std::max(flat.n, flat.m)) {
        position_.resize(flat.n);
        for (int step = 0; step < end_; ++step) position_[order_[step]] = step;
        for (int v = 0; v < flat.m; ++v) {
            overwritten_at_.push_back(flat.overwriter[v] < 0 ? end_ + 1 : position_[flat.overwriter[v]]);
            if (flat.keep[v]) uses_[v].push_back(end_);
        }
        for (int step = end_ - 1; step >= 0; --step)
            for (int v : flat.reads[order_[step]]) uses_[v].push_back(step);
        find_again_by();
        for (int v = 0; v < flat.m; ++v)
            if (flat.producer[v] < 0) put(v, new_memory(v, 0));
    }

    const std::vector<int>& run() {
        for (now_ = 0; now_ < end_ && spent_ <= limit_; ++now_) bring(order_[now_], wanted());
        std::vector<int> kept;
        for (int v = 0; v < flat_.m; ++v)
            if (flat_.keep[v]) kept.push_back(v);
        if (spent_ <= limit_) bring(-1, kept);
        if (spent_ > limit_) sequence_.clear();
        return sequence_;
    }

private:
    struct Frame {
        int task;
        const std::vector<int>* reads;
        std::vector<int> has;
    };

    void find_again_by() {
        again_by_.assign(flat_.m, -1);
        for (int v = 0; v < flat_.m; ++v)
            if (flat_.producer[v] < 0) again_by_[v] = overwritten_at_[v];
        for (int task : order_) {
            int least = flat_.again[task] ? end_ + 1 : -1;
            for (int v : flat_.reads[task]) least = std::min(least, again_by_[v]);
            for (int v : flat_.writes[task]) again_by_[v] = least;
        }
    }

    std::vector<int> wanted() const {
        std::vector<int> reads = flat_.reads[order_[now_]];
        for (int step = now_ + 1; step < end_ && step <= now_ + rule_.ahead; ++step)
            for (int v : flat_.reads[order_[step]])
                if (flat_.producer[v] >= 0 && position_[flat_.producer[v]] < now_ && overwritten_at_[v] > now_) reads.push_back(v);
        return reads;
    }

    void bring(int task, const std::vector<int>& reads) {
        std::vector<Frame> waiting;
        waiting.push_back({task, &reads, {}});
        while (!waiting.empty() && spent_ <= limit_) {
            int missing = take(waiting.back());
            if (missing >= 0) {
                int maker = flat_.producer[missing];
                waiting.push_back({maker, &flat_.reads[maker], {}});
                continue;
            }
            if (waiting.back().task >= 0) run_task(waiting.back().task);
            for (int memory : waiting.back().has) --all_[memory].waiting;
            waiting.pop_back();
        }
    }

    int take(Frame& frame) {
        int missing = -1;
        for (int v : *frame.reads) {
            int memory = where_[v];
            if (memory < 0) {
                if (missing < 0) missing = v;
            } else if (std::find(frame.has.begin(), frame.has.end(), memory) == frame.has.end()) {
                frame.has.push_back(memory);
                ++all_[memory].waiting;
            }
        }
        return missing;
    }

    void run_task(int task) {
        const std::vector<int>& writes = flat_.writes[task];
        Bytes allocates = 0;
        for (int v : writes) allocates += flat_.size[v];
        if (allocates && live_ + allocates > budget_) make_room(allocates);
        std::vector<int> homes;
        for (int v : writes) homes.push_back(flat_.lies_in[v] >= 0 ? where_[flat_.lies_in[v]] : -1);
        for (std::size_t i = 0; i < writes.size(); ++i)
            if (flat_.in_place[writes[i]]) {
                for (int lost : all_[homes[i]].holds) where_[lost] = -1;
                all_[homes[i]].holds.clear();
            }
        for (std::size_t i = 0; i < writes.size(); ++i) put(writes[i], homes[i] >= 0 ? homes[i] : new_memory(writes[i], flat_.size[writes[i]]));
        sequence_.push_back(task);
        spent_ += flat_.ticks[task];
    }

    void put(int v, int memory) {
        int old = where_[v];
        if (old == memory) return;
        if (old >= 0) {
            std::vector<int>& held = all_[old].holds;
            held.erase(std::find(held.begin(), held.end(), v));
            if (held.empty()) free_memory(old);
        }
        all_[memory].holds.push_back(v);
        where_[v] = memory;
    }

    int new_memory(int value, Bytes size) {
        all_.push_back(Memory(value, size));
        if (size) {
            memories_.push_back(int(all_.size()) - 1);
            live_ += size;
        }
        return int(all_.size()) - 1;
    }

    void free_memory(int memory) {
        all_[memory].there = false;
        live_ -= all_[memory].size;
        for (int v : all_[memory].holds) where_[v] = -1;
    }

    void make_room(Bytes allocates) {
        memories_.erase(std::remove_if(memories_.begin(), memories_.end(), [&](int i) { return !all_[i].there; }), memories_.end());
        Bytes room = budget_ - allocates;
        for (int memory : memories_) {
            if (live_ <= room) return;
            if (!all_[memory].waiting && use_of(memory) == kNever) free_memory(memory);
        }
        std::vector<int> given_up;
        Bytes small = (live_ - room) / kMany;
        for (int pass = 0; pass < 2 && live_ > room; ++pass) {
            std::vector<std::pair<double, int>> scored;
            for (int memory : memories_)
                if (all_[memory].there && !all_[memory].waiting && (all_[memory].size >= small) == (pass == 0)) scored.push_back({score(memory), memory});
            std::sort(scored.begin(), scored.end());
            for (auto& one : scored) {
                if (live_ <= room) break;
                if (give_up(one.second)) given_up.push_back(one.second);
            }
        }
        for (std::size_t i = given_up.size(); i-- > 0;) {
            Memory& memory = all_[given_up[i]];
            if (live_ + memory.size > room) continue;
            memory.there = true;
            live_ += memory.size;
            for (int v : memory.holds) where_[v] = given_up[i];
        }
    }

    int use_of(int memory) {
        int use = kNever;
        for (int v : all_[memory].holds) use = std::min(use, next_use(v));
        return use;
    }

    double score(int memory) {
        double ticks = power(double(cost(memory)), rule_.cost) * worth_[all_[memory].value];
        return ticks / (power(double(all_[memory].size), rule_.size) * power(double(use_of(memory) - now_ + 1), rule_.distance));
    }

    Ticks cost(int memory) {
        Ticks total = 0;
        seen_.begin();
        waiting_.clear();
        for (int v : all_[memory].holds)
            if (next_use(v) != kNever) waiting_.push_back(v);
        while (!waiting_.empty()) {
            int task = flat_.producer[waiting_.back()];
            waiting_.pop_back();
            if (task < 0 || !seen_.mark(task)) continue;
            total += flat_.ticks[task];
            for (int v : flat_.reads[task])
                if (where_[v] < 0 || where_[v] == memory) waiting_.push_back(v);
        }
        return total;
    }

    int next_use(int v) {
        std::vector<int>& uses = uses_[v];
        while (!uses.empty() && uses.back() < now_) uses.pop_back();
        int next = uses.empty() ? kNever : uses.back();
        for (int step : holds_[v])
            if (step >= now_) next = std::min(next, step);
        return next;
    }

    bool give_up(int memory) {
        std::vector<std::pair<int, int>> holds;
        for (int v : all_[memory].holds) {
            if (next_use(v) == kNever) continue;
            int until = uses_[v].empty() ? -1 : uses_[v].back();
            for (int step : holds_[v]) until = std::max(until, step);
            if (!can_be_made(v, until, memory, holds)) return false;
        }
        for (auto& hold : holds) {
            std::vector<int>& steps = holds_[hold.first];
            if (std::find(steps.begin(), steps.end(), hold.second) == steps.end()) steps.push_back(hold.second);
        }
        free_memory(memory);
        return true;
    }

    bool can_be_made(int value, int until, int without, std::vector<std::pair<int, int>>& holds) {
        seen_.begin();
        seen_.mark(value);
        waiting_.assign(1, value);
        while (!waiting_.empty()) {
            int task = flat_.producer[waiting_.back()];
            waiting_.pop_back();
            if (task < 0 || !flat_.again[task]) return false;
            for (int v : flat_.reads[task]) {
                if (where_[v] >= 0 && where_[v] != without && overwritten_at_[v] >= until) {
                    if (flat_.producer[v] >= 0 && (rule_.hold || again_by_[v] < until)) holds.push_back({v, until});
                } else if (again_by_[v] < until && seen_.mark(v)) {
                    waiting_.push_back(v);
                }
            }
        }
        return true;
    }

    const Flat& flat_;
    std::vector<int> order_;
    Bytes budget_, live_ = 0;
    Rule rule_;
    const double* worth_;
    Ticks limit_, spent_ = 0;
    int end_, now_ = 0;
    std::vector<int> position_, overwritten_at_, again_by_;
    std::vector<std::vector<int>> uses_, holds_;
    std::vector<int> where_;
    std::vector<Memory> all_;
    std::vector<int> memories_, sequence_, waiting_;
    Marks seen_;
};

class PeakOf {
public:
    explicit PeakOf(const Flat& flat) : flat_(flat), newest_(flat.m) {}

    Bytes operator()(const int* sequence, int length) {
        begin();
        for (int step = 0; step < length; ++step)
            if (!run(sequence[step], step)) return -1;
        change_.assign(length + 1, 0);
        for (int v = 0; v < flat_.m; ++v) {
            if (!flat_.keep[v]) continue;
            if (newest_[v].empty()) return -1;
            last_[newest_[v].back()] = length - 1;
        }
        for (int i = flat_.m; i < count_; ++i) change_[made_[i]] += size_[i], change_[last_[i] + 1] -= size_[i];
        Bytes live = 0, peak = 0;
        for (Bytes change : change_) peak = std::max(peak, live += change);
        return peak;
    }

private:
    void begin() {
        for (auto& one : newest_) one.clear();
        count_ = 0;
        for (int v = 0; v < flat_.m; ++v) {
            add(0, 0);
            holds_[v].push_back(v);
            if (flat_.producer[v] < 0) newest_[v].push_back(v);
        }
    }

    int add(Bytes size, int step) {
        if (count_ == int(holds_.size())) holds_.emplace_back(), size_.push_back(0), made_.push_back(0), last_.push_back(0);
        holds_[count_].clear();
        size_[count_] = size, made_[count_] = last_[count_] = step;
        return count_++;
    }

    bool run(int task, int step) {
        for (int v : flat_.reads[task]) {
            if (newest_[v].empty()) return false;
            last_[newest_[v].back()] = step;
        }
        const std::vector<int>& writes = flat_.writes[task];
        homes_.clear();
        for (int v : writes) homes_.push_back(flat_.lies_in[v] >= 0 ? newest_[flat_.lies_in[v]].back() : -1);
        for (std::size_t i = 0; i < writes.size(); ++i)
            if (flat_.in_place[writes[i]]) {
                for (int lost : holds_[homes_[i]]) remove(newest_[lost], homes_[i]);
                holds_[homes_[i]].clear();
            }
        for (std::size_t i = 0; i < writes.size(); ++i) {
            int v = writes[i], home = homes_[i] < 0 ? add(flat_.size[v], step) : homes_[i];
            std::vector<int>& held = holds_[home];
            if (std::find(held.begin(), held.end(), v) != held.end())
                remove(newest_[v], home);
            else
                held.push_back(v);
            newest_[v].push_back(home);
        }
        return true;
    }

    static void remove(std::vector<int>& list, int item) { list.erase(std::find(list.begin(), list.end(), item)); }

    const Flat& flat_;
    std::vector<std::vector<int>> newest_, holds_;
    std::vector<Bytes> size_, change_;
    std::vector<int> made_, last_, homes_;
    int count_ = 0;
};

std::vector<int> drop_needless(const Flat& flat, std::vector<int> kept, Bytes budget, Ticks least) {
    PeakOf peak_of(flat);
    for (bool dropped = true; dropped;) {
        dropped = false;
        std::vector<char> seen(flat.n, 0);
        std::vector<std::pair<Ticks, int>> repeats;
        for (int step = 0; step < int(kept.size()); ++step) {
            if (seen[kept[step]] && flat.ticks[kept[step]] >= least) repeats.push_back({-flat.ticks[kept[step]], step});
            seen[kept[step]] = 1;
        }
        std::sort(repeats.begin(), repeats.end());
        std::vector<char> gone(kept.size(), 0);
        std::vector<int> trial;
        for (auto& repeat : repeats) {
            trial.clear();
            for (int step = 0; step < int(kept.size()); ++step)
                if (step != repeat.second && !gone[step]) trial.push_back(kept[step]);
            Bytes peak = peak_of(trial.data(), int(trial.size()));
            if (peak >= 0 && peak <= budget) gone[repeat.second] = 1, dropped = true;
        }
        trial.clear();
        for (int step = 0; step < int(kept.size()); ++step)
            if (!gone[step]) trial.push_back(kept[step]);
        kept.swap(trial);
    }
    return kept;
}

std::vector<std::vector<int>> unpack(const int* start, const int* item, int count) {
    std::vector<std::vector<int>> lists(count);
    for (int i = 0; i < count; ++i) lists[i].assign(item + start[i], item + start[i + 1]);
    return lists;
}

int give(const std::vector<int>& found, int* out, int room) {
    if (int(found.size()) <= room) std::copy(found.begin(), found.end(), out);
    return int(found.size());
}

}  // namespace

extern "C" {

Flat* memopt_program(int n, int m, const int* read_start, const int* read, const int* write_start, const int* write, const Ticks* ticks,
                     const char* again, const int* lies_in, const char* in_place, const Bytes* size, const int* producer, const int* overwriter,
                     const char* keep) {
    Flat* flat = new Flat{};
    flat->n = n, flat->m = m;
    flat->reads = unpack(read_start, read, n);
    flat->writes = unpack(write_start, write, n);
    flat->ticks.assign(ticks, ticks + n);
    flat->again.assign(again, again + n);
    flat->lies_in.assign(lies_in, lies_in + m);
    flat->in_place.assign(in_place, in_place + m);
    flat->size.assign(size, size + m);
    flat->producer.assign(producer, producer + m);
    flat->overwriter.assign(overwriter, overwriter + m);
    flat->keep.assign(keep, keep + m);
    return flat;
}
void memopt_program_free(Flat* flat) { delete flat; }

// How long the sequence is, 0 if it costs more than the limit; it is in `out` if that has room for it.
int memopt_evict(const Flat* flat, const int* order, Bytes budget, int size, int distance, int cost, int hold, int ahead, const double* worth, Ticks limit,
                 int* out, int room) {
    return give(Simulation(*flat, order, budget, {size, distance, cost, hold, ahead}, worth, limit).run(), out, room);
}
Bytes memopt_peak_of(const Flat* flat, const int* sequence, int length) { return PeakOf(*flat)(sequence, length); }
int memopt_drop_needless(const Flat* flat, const int* sequence, int length, Bytes budget, Ticks least, int* out) {
    return give(drop_needless(*flat, std::vector<int>(sequence, sequence + length), budget, least), out, length);
}
}
