"use strict";
// Draws a device's last 24 hours: the mean of each five minutes, between the least and the most of it.

document.addEventListener("DOMContentLoaded", () => {
  const source = document.getElementById("telemetry-data");
  if (!source) return;
  const points = JSON.parse(source.textContent);
  const tone = getComputedStyle(document.documentElement).getPropertyValue("--color-primary-600").trim();
  for (const canvas of document.querySelectorAll("canvas[data-metric]")) {
    const seen = points.filter((point) => point.metrics[canvas.dataset.metric]);
    if (!seen.length) {
      canvas.parentElement.remove();
      continue;
    }
    const line = (name, more) => ({
      data: seen.map((point) => point.metrics[canvas.dataset.metric][name]), pointRadius: seen.length < 3 ? 3 : 0, borderWidth: 0, ...more,
    });
    new Chart(canvas, {
      type: "line",
      data: {
        labels: seen.map((point) => point.at.slice(11, 16)),
        datasets: [
          line("min", { pointRadius: 0 }),
          line("max", { pointRadius: 0, fill: "-1", backgroundColor: "rgba(128, 128, 128, 0.25)" }),
          line("avg", { borderWidth: 2, borderColor: tone, backgroundColor: tone }),
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: { legend: { display: false }, title: { display: true, align: "start", text: canvas.dataset.unit } },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 24 } },
          y: { beginAtZero: true, suggestedMax: canvas.dataset.metric === "utilization" ? 100 : undefined, grid: { color: "rgba(128, 128, 128, 0.2)" } },
        },
      },
    });
  }
});
