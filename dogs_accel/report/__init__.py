"""The report of a run, or of several: one HTML file that opens anywhere, without a network."""

from dogs_accel.report.page import REPORT_FILE, render_report, write_comparison_report, write_report

__all__ = ["REPORT_FILE", "render_report", "write_comparison_report", "write_report"]
