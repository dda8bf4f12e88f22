// The compiled twin of evict.py: the same victims in the same order, so the same sequences. Read that file first; the reasons
// stand there. This file needs no header of Python's: evict_kernel.py calls it through ctypes.
// Scores are made of products, quotients and square roots alone, which round alike everywhere.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace {

using Bytes = std::int64_t;
using Ticks = std::int64_t;
constexpr int kNever = 1 << 30, kMany = 256, kTooCheap = 64;

struct Flat {
    int n, m;
    std::vector<std::vector<int>> reads, writes;
    std::vector<Ticks> ticks;
    std::vector<char> again, in_place, keep;
    std::vector<int> lies_in, producer, overwriter;
    std::vector<Bytes> size;
    std::vector<int> use_start;  // where the uses of each value begin, if those of all lie in a row
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
        : flat_(flat), order_(order, order + flat.n), budget_(budget), rule_(rule), worth_(worth), limit_(limit), end_(flat.n), uses_end_(flat.use_start), uses_(flat.use_start.back()), holds_(flat.m),
          where_(flat.m, -1), seen_(std::max(flat.n, flat.m)) {
        position_.resize(flat.n);
        for (int step = 0; step < end_; ++step) position_[order_[step]] = step;
        for (int v = 0; v < flat.m; ++v) {
            overwritten_at_.push_back(flat.overwriter[v] < 0 ? end_ + 1 : position_[flat.overwriter[v]]);
            if (flat.keep[v]) uses_[uses_end_[v]++] = end_;
        }
        for (int step = end_ - 1; step >= 0; --step)
            for (int v : flat.reads[order_[step]]) uses_[uses_end_[v]++] = step;
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

    int last_use(int v) const { return uses_end_[v] == flat_.use_start[v] ? -1 : uses_[uses_end_[v] - 1]; }

    int next_use(int v) {
        while (last_use(v) >= 0 && last_use(v) < now_) --uses_end_[v];
        int next = last_use(v) < 0 ? kNever : last_use(v);
        for (int step : holds_[v])
            if (step >= now_) next = std::min(next, step);
        return next;
    }

    bool give_up(int memory) {
        std::vector<std::pair<int, int>> holds;
        for (int v : all_[memory].holds) {
            if (next_use(v) == kNever) continue;
            int until = last_use(v);
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
    std::vector<int> uses_end_, uses_;  // of each value the steps that need it, the next one last
    std::vector<std::vector<int>> holds_;
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
        for (int step = 0; step < length; ++step) {
            first_of_.push_back(count_);
            if (!run(sequence[step], step)) return -1;
        }
        first_of_.push_back(count_);
        for (int v = 0; v < flat_.m; ++v) {
            if (!flat_.keep[v]) continue;
            if (newest_[v].empty()) return -1;
            last_[newest_[v].back()] = length - 1;
        }
        live_.assign(length + 1, 0);
        for (int i = flat_.m; i < count_; ++i) live_[made_[i]] += size_[i], live_[last_[i] + 1] -= size_[i];
        Bytes live = 0, peak = 0;
        for (Bytes& change : live_) peak = std::max(peak, change = live += change);
        return peak;
    }

    // After a legal sequence: what its peak is at least if this step, a repeat of the task, is left out. Whoever reads the copy made here
    // then reads the one before it, which has to stay until then; on the other hand, all that ends here may end earlier. Nothing else
    // changes before this step, but for a task that writes into memory of others: then other copies may be the newest.
    Bytes least_without(int step, int task) const {
        if (first_of_[step + 1] - first_of_[step] < int(flat_.writes[task].size())) return 0;
        Bytes ends = 0, least = 0;
        for (int i = flat_.m; i < first_of_[step]; ++i)
            if (last_[i] == step) ends += size_[i];
        for (int i = first_of_[step]; i < first_of_[step + 1]; ++i) {
            int older = older_[i];
            if (older < flat_.m || last_[older] >= step || last_[i] == step) continue;
            for (int gap = last_[older] + 1; gap < step; ++gap) least = std::max(least, live_[gap] + size_[i] - ends);
        }
        return least;
    }

private:
    void begin() {
        for (auto& one : newest_) one.clear();
        first_of_.clear();
        count_ = 0;
        for (int v = 0; v < flat_.m; ++v) {
            add(0, 0);
            holds_[v].push_back(v);
            if (flat_.producer[v] < 0) newest_[v].push_back(v);
        }
    }

    int add(Bytes size, int step) {
        if (count_ == int(holds_.size())) holds_.emplace_back(), size_.push_back(0), made_.push_back(0), last_.push_back(0), older_.push_back(0);
        holds_[count_].clear();
        size_[count_] = size, made_[count_] = last_[count_] = step, older_[count_] = -1;
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
            if (homes_[i] < 0 && !newest_[v].empty()) older_[home] = newest_[v].back();
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
    std::vector<Bytes> size_, live_;  // of each memory; while each step runs
    std::vector<int> made_, last_;    // steps of each memory
    std::vector<int> older_;          // the memory that had the newest copy of the same value before; -1 for none
    std::vector<int> first_of_;       // the first memory that each step makes
    std::vector<int> homes_;
    int count_ = 0;
};

struct Program {
    explicit Program(Flat* lists) : flat(lists), one(*lists), other(*lists) {}
    std::unique_ptr<Flat> flat;
    PeakOf one, other;
};

struct Found {
    std::vector<int> sequence;
    Bytes peak;
};

Found drop_needless(Program& program, std::vector<int> kept, Bytes budget, Ticks least, bool at_its_peak) {
    const Flat& flat = *program.flat;
    PeakOf *now = &program.one, *without = &program.other;
    Bytes known = (*now)(kept.data(), int(kept.size()));
    if (at_its_peak) budget = std::max(budget, known);
    for (bool dropped = true; dropped;) {
        dropped = false;
        std::vector<char> seen(flat.n, 0);
        std::vector<std::pair<Ticks, int>> repeats;
        std::vector<int> left, trial;  // steps of the sequence as this round began
        for (int step = 0; step < int(kept.size()); ++step) {
            if (seen[kept[step]] && flat.ticks[kept[step]] >= least) repeats.push_back({-flat.ticks[kept[step]], step});
            seen[kept[step]] = 1;
            left.push_back(step);
        }
        std::sort(repeats.begin(), repeats.end());
        for (auto& repeat : repeats) {
            auto at = std::lower_bound(left.begin(), left.end(), repeat.second);
            int step = int(at - left.begin());
            if (known >= 0 && now->least_without(step, kept[step]) > budget) continue;
            trial = kept;
            trial.erase(trial.begin() + step);
            Bytes peak = (*without)(trial.data(), int(trial.size()));
            if (peak < 0 || peak > budget) continue;
            kept.swap(trial);
            std::swap(now, without);
            left.erase(at);
            known = peak;
            dropped = true;
        }
    }
    return {kept, known};
}

Found trial(Program& program, const int* order, Bytes budget, Rule rule, const double* worth, Ticks limit) {
    const Flat& flat = *program.flat;
    std::vector<int> sequence = Simulation(flat, order, budget, rule, worth, limit).run();
    if (sequence.empty()) return {sequence, 0};
    Ticks extra = 0;
    for (int task : sequence) extra += flat.ticks[task];
    for (Ticks once : flat.ticks) extra -= once;
    return drop_needless(program, sequence, budget, extra / kTooCheap, true);
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

Program* memopt_program(int n, int m, const int* read_start, const int* read, const int* write_start, const int* write, const Ticks* ticks,
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
    std::vector<int> uses(keep, keep + m);
    for (const std::vector<int>& reads : flat->reads)
        for (int v : reads) ++uses[v];
    flat->use_start.assign(1, 0);
    for (int count : uses) flat->use_start.push_back(flat->use_start.back() + count);
    return new Program(flat);
}
void memopt_program_free(Program* program) { delete program; }

// How long the sequence is, 0 if it costs more than the limit; it is in `out` if that has room for it.
int memopt_evict(const Program* program, const int* order, Bytes budget, int size, int distance, int cost, int hold, int ahead, const double* worth,
                 Ticks limit, int* out, int room) {
    return give(Simulation(*program->flat, order, budget, {size, distance, cost, hold, ahead}, worth, limit).run(), out, room);
}
// The same for a trial, and its peak.
int memopt_trial(Program* program, const int* order, Bytes budget, int size, int distance, int cost, int hold, int ahead, const double* worth, Ticks limit,
                 int* out, int room, Bytes* peak) {
    Found found = trial(*program, order, budget, {size, distance, cost, hold, ahead}, worth, limit);
    *peak = found.peak;
    return give(found.sequence, out, room);
}
Bytes memopt_peak_of(Program* program, const int* sequence, int length) { return program->one(sequence, length); }
int memopt_drop_needless(Program* program, const int* sequence, int length, Bytes budget, Ticks least, int* out) {
    return give(drop_needless(*program, std::vector<int>(sequence, sequence + length), budget, least, false).sequence, out, length);
}
}
