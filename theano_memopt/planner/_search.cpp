// The compiled twin of search.py and of flow.py: the same rules in the same order, so the same answer after the same
// number of states. Read those two first; the reasons stand there. This file needs no header of Python's: kernel.py calls
// it through ctypes. Sizes are 64-bit; kernel.py keeps graphs with larger sums away from it.

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <unordered_set>
#include <utility>
#include <vector>

namespace {

using Bytes = std::int64_t;
using Word = std::uint64_t;
constexpr Bytes kInfinite = Bytes(1) << 61;

class Bits {
public:
    explicit Bits(int n = 0) : words_((n + 63) / 64, 0) {}
    bool has(int i) const { return words_[i >> 6] >> (i & 63) & 1; }
    void add(int i) { words_[i >> 6] |= Word(1) << (i & 63); }
    void drop(int i) { words_[i >> 6] &= ~(Word(1) << (i & 63)); }
    void unite(const Bits& other) {
        for (std::size_t w = 0; w < words_.size(); ++w) words_[w] |= other.words_[w];
    }
    template <class Visit> void each(Visit visit) const {  // ascending; each word is read once, before its bits are visited
        for (std::size_t w = 0; w < words_.size(); ++w)
            for (Word rest = words_[w]; rest; rest &= rest - 1) visit(int(w * 64) + __builtin_ctzll(rest));
    }

private:
    std::vector<Word> words_;
};

struct Arc {
    int to, back;
    Bytes room;
};

struct Problem {
    int n, m;
    std::vector<Bytes> size, allocates, transient;
    std::vector<char> pinned;
    std::vector<int> producer, topological;
    std::vector<std::vector<int>> readers, reads, before, behind;
    std::vector<Bits> ancestors;
    std::vector<int> first_arc;  // the network of flow.py, arcs of node x at first_arc[x] .. first_arc[x + 1]
    std::vector<Arc> arcs;
    std::vector<int> forward;  // the arcs in the order of flow.py, without their reverses

    void finish() {
        allocates.assign(n, 0), transient.assign(n, 0), reads.resize(n), behind.resize(n);
        for (int b = 0; b < m; ++b) {
            if (producer[b] < 0 || size[b] == 0) continue;
            allocates[producer[b]] += size[b];
            if (pinned[b]) continue;
            if (readers[b].empty()) transient[producer[b]] += size[b];
            for (int reader : readers[b]) reads[reader].push_back(b);
        }
        std::vector<int> missing(n);
        std::priority_queue<int, std::vector<int>, std::greater<int>> ready;  // Graph.natural_order
        for (int t = 0; t < n; ++t) {
            missing[t] = int(before[t].size());
            for (int p : before[t]) behind[p].push_back(t);
            if (!missing[t]) ready.push(t);
        }
        ancestors.assign(n, Bits(n));
        while (!ready.empty()) {
            int task = ready.top();
            ready.pop();
            topological.push_back(task);
            for (int later : behind[task]) {
                ancestors[later].unite(ancestors[task]);
                ancestors[later].add(task);
                if (--missing[later] == 0) ready.push(later);
            }
        }
        build_network();
    }

    void build_network() {
        std::vector<std::vector<Arc>> out(n + m + 1);
        std::vector<std::pair<int, int>> joined;
        auto join = [&](int from, int to, Bytes room) {
            joined.push_back({from, int(out[from].size())});
            out[from].push_back({to, int(out[to].size()), room});
            out[to].push_back({from, int(out[from].size()) - 1, 0});
        };
        for (int b = 0; b < m; ++b) {
            if (producer[b] < 0 || size[b] == 0) continue;
            join(producer[b], n + b, size[b]);
            if (pinned[b]) join(n + b, n + m, kInfinite);
            else for (int reader : readers[b]) join(n + b, reader, kInfinite);
        }
        for (int t = 0; t < n; ++t)
            for (int p : before[t]) join(t, p, kInfinite);
        first_arc.push_back(0);
        for (auto& list : out) first_arc.push_back(first_arc.back() + int(list.size()));
        for (auto& list : out)
            for (Arc arc : list) arcs.push_back({arc.to, first_arc[arc.to] + arc.back, arc.room});
        for (auto& place : joined) forward.push_back(first_arc[place.first] + place.second);
    }
};

// flow.py: Cut
class Cut {
public:
    Cut(const Problem& problem, int task)
        : task(task), problem_(problem), arcs_(problem.arcs), closed_(problem.n + problem.m + 1, 0),
          seen_(problem.n + problem.m + 1, 0), via_(problem.n + problem.m + 1, -1), sink_(problem.n + problem.m + 1, 0) {
        sink_[task] = sink_[problem.n + problem.m] = 1;
    }

    void forbid(int undone) { sink_[undone] = 1; }

    int task;
    Bytes value = 0;

    void force_ancestors() {  // flow.py: _force_together
        std::vector<int> sources;
        const std::vector<int>& order = problem_.topological;
        for (std::size_t i = order.size(); i-- > 0;)
            if (problem_.ancestors[task].has(order[i])) sources.push_back(order[i]);
        std::vector<int> level, next;
        while (set_levels(sources, level)) {
            next.assign(problem_.first_arc.begin(), problem_.first_arc.end() - 1);
            for (int source : sources) push_along_levels(source, level, next);
        }
        for (std::size_t node = 0; node < level.size(); ++node)
            if (level[node] >= 0) closed_[node] = 1;
    }

    bool force(int done, Bytes limit) {
        if (sink_[done]) value = kInfinite;
        if (closed_[done]) return value <= limit;
        while (value <= limit) {
            int end = find_path(done);
            if (end < 0) {
                for (int node : queue_) closed_[node] = 1, closed_log_.push_back(node);
                return true;
            }
            Bytes push = kInfinite;
            for (int y = end; via_[y] >= 0; y = arcs_[arcs_[via_[y]].back].to) push = std::min(push, arcs_[via_[y]].room);
            if (push > kInfinite / 2) {
                value = kInfinite;
                break;
            }
            for (int y = end; via_[y] >= 0; y = arcs_[arcs_[via_[y]].back].to) shift(via_[y], push), flow_log_.push_back({via_[y], push});
            value += push;
        }
        return value <= limit;
    }

    void flows(Bytes* out) const {
        for (std::size_t i = 0; i < problem_.forward.size(); ++i) out[i] = problem_.arcs[problem_.forward[i]].room - arcs_[problem_.forward[i]].room;
    }

    // flow.py: least_set
    void least_set(char* out) const { std::copy(closed_.begin(), closed_.begin() + problem_.n, out); }

    struct Mark {
        std::size_t flows, closed;
        Bytes value;
    };
    Mark mark() const { return {flow_log_.size(), closed_log_.size(), value}; }
    void undo(const Mark& mark) {
        for (; flow_log_.size() > mark.flows; flow_log_.pop_back()) shift(flow_log_.back().first, -flow_log_.back().second);
        for (; closed_log_.size() > mark.closed; closed_log_.pop_back()) closed_[closed_log_.back()] = 0;
        value = mark.value;
    }

private:
    bool set_levels(const std::vector<int>& sources, std::vector<int>& level) {
        level.assign(problem_.n + problem_.m + 1, -1);
        queue_ = sources;
        for (int source : sources) level[source] = 0;
        bool reached = false;
        for (std::size_t i = 0; i < queue_.size(); ++i)
            for (int e = problem_.first_arc[queue_[i]]; e < problem_.first_arc[queue_[i] + 1]; ++e) {
                int y = arcs_[e].to;
                if (arcs_[e].room <= 0 || level[y] >= 0) continue;
                level[y] = level[queue_[i]] + 1;
                if (sink_[y]) reached = true;
                else queue_.push_back(y);
            }
        return reached;
    }

    void push_along_levels(int source, std::vector<int>& level, std::vector<int>& next) {
        std::vector<int> path;
        int node = source;
        for (;;) {
            if (sink_[node]) {
                Bytes push = kInfinite;
                for (int e : path) push = std::min(push, arcs_[e].room);
                value += push;
                std::size_t keep = path.size();
                for (std::size_t i = path.size(); i-- > 0;) {
                    shift(path[i], push);
                    if (arcs_[path[i]].room == 0) keep = i;
                }
                path.resize(keep);
            } else {
                int& e = next[node];
                while (e < problem_.first_arc[node + 1] && (arcs_[e].room <= 0 || level[arcs_[e].to] != level[node] + 1)) ++e;
                if (e < problem_.first_arc[node + 1]) {
                    path.push_back(e);
                } else {
                    level[node] = -2;  // nothing gets through here any more, in this phase
                    if (path.empty()) return;
                    path.pop_back();
                }
            }
            node = path.empty() ? source : arcs_[path.back()].to;
        }
    }

    void shift(int arc, Bytes push) {
        arcs_[arc].room -= push;
        arcs_[arcs_[arc].back].room += push;
    }
    int find_path(int from) {
        ++stamp_;
        queue_.assign(1, from);
        seen_[from] = stamp_, via_[from] = -1;
        for (std::size_t i = 0; i < queue_.size(); ++i)
            for (int e = problem_.first_arc[queue_[i]]; e < problem_.first_arc[queue_[i] + 1]; ++e) {
                int y = arcs_[e].to;
                if (arcs_[e].room <= 0 || seen_[y] == stamp_ || closed_[y]) continue;
                seen_[y] = stamp_, via_[y] = e;
                if (sink_[y]) return y;
                queue_.push_back(y);
            }
        return -1;
    }

    const Problem& problem_;
    std::vector<Arc> arcs_;
    std::vector<char> closed_;
    std::vector<int> seen_, via_, queue_, closed_log_;
    std::vector<char> sink_;
    std::vector<std::pair<int, Bytes>> flow_log_;
    int stamp_ = 0;
};

struct Key {
    Word a = 0, b = 0;
    bool operator==(const Key& other) const { return a == other.a && b == other.b; }
};
struct KeyHash {
    std::size_t operator()(const Key& key) const { return key.a; }
};
Word scramble(Word x) {  // splitmix64
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

enum Pruning { kSettle = 1, kCommit = 2, kMemory = 4 };  // set for those that are on
enum Status { kRunning = 0, kFound = 1, kExhausted = 2 };

// search.py: BudgetSearch
class Search {
public:
    Search(const Problem& problem, Bytes budget, const std::vector<const Cut*>& critical, int prunings)
        : problem_(problem), prunings_(prunings), budget_(budget), done_(problem.n), ready_(problem.n), missing_(problem.n), unread_(problem.m) {
        for (int t = 0; t < problem.n; ++t)
            if (!(missing_[t] = int(problem.before[t].size()))) ready_.add(t);
        for (int b = 0; b < problem.m; ++b) unread_[b] = int(problem.readers[b].size());
        for (const Cut* cut : critical) cuts_.push_back(*cut);
        for (Cut& cut : cuts_) root_marks_.push_back(cut.mark());
    }

    Bytes states = 0, next_budget = kInfinite;
    std::vector<int> trail;

    Status run(Bytes until, int rule) {
        if (status_ == kRunning && stack_.empty()) status_ = enter(0, rule);
        while (status_ == kRunning && states < until) status_ = advance(rule);
        return status_;
    }

    void restart() {  // keep what is known to fail, begin again at the root
        if (status_ != kRunning) return;
        stack_.clear();
        back_to(0);
        for (std::size_t i = 0; i < cuts_.size(); ++i) cuts_[i].undo(root_marks_[i]);
    }

private:
    struct Frame {
        std::size_t mark;
        std::vector<Cut::Mark> cut_marks;
        Key key;
        std::vector<int> children;
        std::size_t next;
    };

    Status advance(int rule) {
        Frame& top = stack_.back();
        if (top.next == top.children.size()) {
            fail(top.key);
            leave(top.mark, top.cut_marks);
            stack_.pop_back();
            return stack_.empty() ? kExhausted : kRunning;
        }
        int child = top.children[top.next++];
        std::size_t mark = trail.size();
        step(child);
        return enter(mark, rule);
    }

    // `trail` from `mark` on is new; settle, and open a frame unless the state is known or hopeless
    Status enter(std::size_t mark, int rule) {
        settle();
        if (int(trail.size()) == problem_.n) return kFound;
        std::vector<Cut::Mark> marks;
        for (Cut& cut : cuts_) marks.push_back(cut.mark());
        bool hopeless = failed_.count(key_) || !fits(mark);
        if (hopeless) {
            fail(key_);
            leave(mark, marks);
            return stack_.empty() ? kExhausted : kRunning;
        }
        Frame frame{mark, std::move(marks), key_, {}, 0};
        frame.children = children(rule);
        stack_.push_back(std::move(frame));
        return kRunning;
    }

    void leave(std::size_t mark, const std::vector<Cut::Mark>& marks) {
        back_to(mark);
        for (std::size_t i = 0; i < cuts_.size(); ++i) cuts_[i].undo(marks[i]);
    }

    void fail(const Key& key) {
        if (prunings_ & kMemory) failed_.insert(key);
    }

    bool fits(std::size_t from) {
        for (Cut& cut : cuts_) {
            if (done_.has(cut.task)) continue;
            Bytes room = budget_ - problem_.allocates[cut.task];
            if (cut.value > room) return too_high(cut);
            for (std::size_t i = from; i < trail.size(); ++i)
                if (!cut.force(trail[i], room)) return too_high(cut);
        }
        return true;
    }
    bool too_high(const Cut& cut) {
        next_budget = std::min(next_budget, cut.value + problem_.allocates[cut.task]);
        return false;
    }

    std::vector<int> children(int rule) {
        ++states;
        struct Child {
            Bytes first, second;
            int task;
            bool operator<(const Child& o) const { return std::make_pair(first, std::make_pair(second, task)) < std::make_pair(o.first, std::make_pair(o.second, o.task)); }
        };
        std::vector<Child> open;
        const Bits before = ready_;
        const Bytes resting = live_;
        int committed = -1;
        bool dead = false;
        before.each([&](int task) {
            if (committed >= 0) return;
            if (live_ + problem_.allocates[task] > budget_) {
                next_budget = std::min(next_budget, live_ + problem_.allocates[task]);
                return;
            }
            std::size_t mark = trail.size();
            step(task);
            if ((prunings_ & kCommit) && falls_back(before, resting)) committed = task;
            settle();
            bool known = failed_.count(key_);
            if (committed >= 0) dead = known;
            else if (!known) open.push_back(rank<Child>(rule, task, mark, resting));
            back_to(mark);
        });
        if (committed >= 0) return dead ? std::vector<int>() : std::vector<int>(1, committed);
        std::sort(open.begin(), open.end());
        std::vector<int> order;
        for (const Child& child : open) order.push_back(child.task);
        return order;
    }

    template <class Child> Child rank(int rule, int task, std::size_t mark, Bytes resting) const {
        if (rule == 0) return {live_, 0, task};
        if (rule == 1) return {-Bytes(trail.size() - mark), live_, task};
        Word chance = scramble(Word(rule) * 1000003 + Word(states) * 8191 + Word(task)) >> 56;
        return {live_ + std::max(live_ - resting, Bytes(0)) / 256 * Bytes(chance), 0, task};
    }

    // the commit rule: does the step, with what it alone made ready, come back to where it began or lower?
    bool falls_back(const Bits& before, Bytes resting) {
        if (live_ <= resting) return true;
        for (bool moved = true; moved;) {
            moved = false;
            const Bits now = ready_;
            bool back = false;
            now.each([&](int task) {
                if (back || before.has(task) || !is_free(task)) return;
                step(task);
                moved = true;
                back = live_ <= resting;
            });
            if (back) return true;
        }
        return false;
    }

    void settle() {
        for (bool moved = prunings_ & kSettle; moved;) {
            moved = false;
            const Bits now = ready_;
            now.each([&](int task) {
                if (!is_free(task)) return;
                step(task);
                moved = true;
            });
        }
    }
    bool is_free(int task) const {
        return live_ + problem_.allocates[task] <= budget_ && frees(task) >= problem_.allocates[task];
    }
    Bytes frees(int task) const {
        Bytes sum = problem_.transient[task];
        for (int b : problem_.reads[task])
            if (unread_[b] == 1) sum += problem_.size[b];
        return sum;
    }
    void step(int task) {
        live_ += problem_.allocates[task] - frees(task);
        for (int b : problem_.reads[task]) --unread_[b];
        done_.add(task), ready_.drop(task);
        for (int later : problem_.behind[task])
            if (--missing_[later] == 0) ready_.add(later);
        trail.push_back(task);
        toggle(task);
    }
    void back_to(std::size_t mark) {
        while (trail.size() > mark) {
            int task = trail.back();
            trail.pop_back();
            for (int b : problem_.reads[task]) ++unread_[b];
            live_ -= problem_.allocates[task] - frees(task);
            done_.drop(task), ready_.add(task);
            for (int later : problem_.behind[task])
                if (missing_[later]++ == 0) ready_.drop(later);
            toggle(task);
        }
    }
    void toggle(int task) {
        key_.a ^= scramble(2 * Word(task) + 1);
        key_.b ^= scramble(2 * Word(task) + (Word(1) << 40));
    }

    const Problem& problem_;
    int prunings_;
    Bytes budget_, live_ = 0;
    Bits done_, ready_;
    std::vector<int> missing_, unread_;
    Key key_;
    std::vector<Cut> cuts_;
    std::vector<Cut::Mark> root_marks_;
    std::unordered_set<Key, KeyHash> failed_;
    std::vector<Frame> stack_;
    Status status_ = kRunning;
};

// A problem, and the cuts that searches on it began with: they are the same for every budget.
struct Kernel {
    Problem problem;
    std::map<int, Cut> cuts;

    const Cut* cut(int task) {
        auto found = cuts.find(task);
        if (found == cuts.end()) {
            found = cuts.emplace(task, Cut(problem, task)).first;
            found->second.force_ancestors();
        }
        return &found->second;
    }
};

std::vector<std::vector<int>> unpack(const int* start, const int* item, int count) {
    std::vector<std::vector<int>> lists(count);
    for (int i = 0; i < count; ++i) lists[i].assign(item + start[i], item + start[i + 1]);
    return lists;
}

}  // namespace

extern "C" {

Kernel* memopt_kernel(int n, int m, const Bytes* size, const char* pinned, const int* producer, const int* reader_start, const int* reader,
                      const int* before_start, const int* before) {
    Kernel* kernel = new Kernel{};
    Problem& problem = kernel->problem;
    problem.n = n, problem.m = m;
    problem.size.assign(size, size + m);
    problem.pinned.assign(pinned, pinned + m);
    problem.producer.assign(producer, producer + m);
    problem.readers = unpack(reader_start, reader, m);
    problem.before = unpack(before_start, before, n);
    problem.finish();
    return kernel;
}
void memopt_kernel_free(Kernel* kernel) { delete kernel; }

Bytes memopt_cut(const Kernel* kernel, int task, const int* done, int count, const int* undone, int undone_count, Bytes limit, Bytes* flows,
                  char* least_set) {
    Cut cut(kernel->problem, task);
    for (int i = 0; i < undone_count; ++i) {
        if (kernel->problem.ancestors[task].has(undone[i])) return kInfinite;
        cut.forbid(undone[i]);
    }
    cut.force_ancestors();
    for (int i = 0; i < count && cut.value <= limit; ++i) cut.force(done[i], limit);
    if (flows) cut.flows(flows);
    if (least_set) cut.least_set(least_set);
    return cut.value;
}
int memopt_arcs(const Kernel* kernel) { return int(kernel->problem.forward.size()); }

Search* memopt_search(Kernel* kernel, Bytes budget, const int* critical, int count, int prunings) {
    std::vector<const Cut*> cuts;
    for (int i = 0; i < count; ++i) cuts.push_back(kernel->cut(critical[i]));
    return new Search(kernel->problem, budget, cuts, prunings);
}
void memopt_search_free(Search* search) { delete search; }
int memopt_search_run(Search* search, Bytes until, int rule) { return search->run(until, rule); }
void memopt_search_restart(Search* search) { search->restart(); }
Bytes memopt_search_states(const Search* search) { return search->states; }
Bytes memopt_search_next_budget(const Search* search) { return search->next_budget; }
void memopt_search_trail(const Search* search, int* out) { std::copy(search->trail.begin(), search->trail.end(), out); }
}
