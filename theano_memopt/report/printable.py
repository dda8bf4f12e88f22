"""What `explain` and `profile` hand out: a Report or a Comparison that prints and writes itself.

The readers of a report (text, json_form, page, trace) know the data alone, and the data knows no reader; this module knows both.

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.plan import make_plan
>>> report = report_of(make_plan(worked_example()), "example")
>>> print(str(report).splitlines()[0])
example: 5 tasks, 5 variables; all results together are 15 B
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple, Union

from theano_memopt import files
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.plan import Plan, Storage
from theano_memopt.planner.slots import Slots
from theano_memopt.report import json_form, page, text, trace
from theano_memopt.report.comparison import Comparison
from theano_memopt.report.model import Order, Report, Reserved, total
from theano_memopt.report.together import Together


@dataclass(frozen=True)
class PrintableReport(Report):
    """A report: `print` it, or write it as a page, as JSON or as a trace. Each `to_...` answers the path."""

    def __str__(self) -> str:
        return text.of_report(self)

    def to_html(self, path: str) -> str:
        """Write one self-contained page."""
        return page.write((self,), path)

    def to_json(self, path: str) -> str:
        """Write every figure, and the plan itself."""
        return files.write_json(path, json_form.report_to_json(self))

    def to_trace(self, path: str) -> str:
        """Write the Chrome trace format, which ui.perfetto.dev and chrome://tracing open."""
        return trace.write((self,), path)


@dataclass(frozen=True)
class PrintableComparison(Comparison):
    """A measured call beside its plan: `print` it, or write it as JSON; the page and the trace are those of its report."""

    def __str__(self) -> str:
        return text.of_comparison(self)

    def to_json(self, path: str) -> str:
        """Write every figure of the report and of the measured call."""
        return files.write_json(path, json_form.comparison_to_json(self))

    def to_html(self, path: str) -> str:
        """Write the page of the report, with the measured curve."""
        return page.write((self.report,), path)

    def to_trace(self, path: str) -> str:
        """Write the trace of the report, with the measured counter."""
        return trace.write((self.report,), path)


@dataclass(frozen=True)
class PrintableTogether(Together):
    """Two reports side by side: `print` them, or write them as a page or as JSON."""

    def __str__(self) -> str:
        return text.of_together(self)

    def to_html(self, path: str) -> str:
        """Write one page with both: a table of what changed, the two curves on one scale, and each report below."""
        return page.write((self.before, self.after), path, self.unlike, self.tables)

    def to_json(self, path: str) -> str:
        """Write what changed, and both reports."""
        return files.write_json(path, json_form.together_to_json(self))


def compare(before: Union[Report, Comparison], after: Union[Report, Comparison]) -> PrintableTogether:
    """Two reports side by side, of `explain` or of `profile`: for a change of the model, or of flags.

    >>> from theano_memopt.planner.model import worked_example
    >>> from theano_memopt.planner.plan import make_plan
    >>> report = report_of(make_plan(worked_example()))
    >>> compare(report, report).figures[1]
    ('peak', 8, 8)
    """
    one, two = (side.report if isinstance(side, Comparison) else side for side in (before, after))
    for side in (one, two):
        if not isinstance(side, Report):
            raise TypeError(f"compare takes two reports, as explain and profile make them, not {type(side).__name__}")
    return PrintableTogether(one, two)


def report_of(plan: Plan, name: str = "plan", host_orders: Tuple[Tuple[str, Order], ...] = ()) -> PrintableReport:
    """A report of a plan alone, without a host: the orders are those given and the one in which the tasks were numbered."""
    orders = host_orders or (("given order", plan.graph.natural_order),)
    storage = Reserved(_kind_of(plan.storage), plan.storage, plan.reserved_bytes, total(plan.graph), "all bytes that are set aside for buffers")
    return PrintableReport(name, plan, orders, (storage,))


def _kind_of(storage: Storage) -> str:
    return "cells" if isinstance(storage, Slots) else "arena" if isinstance(storage, Arena) else "no sharing"
