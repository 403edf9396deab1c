"use strict";
// Draws the jobs completed per hour from the figures in the page, and again when htmx has renewed them.

let chart = null;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw() {
  const canvas = document.getElementById("completed");
  const source = document.getElementById("completed-data");
  if (!canvas || !source) return;
  const points = JSON.parse(source.textContent);
  if (chart) chart.destroy();
  chart = new Chart(canvas, {
    type: "bar",
    data: {
      labels: points.map(([hour]) => hour),
      datasets: [{ label: "completed", data: points.map(([, count]) => count), backgroundColor: colour("--color-primary-600"), borderRadius: 3 }],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { display: false } },
      scales: {
        x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 } },
        y: { beginAtZero: true, suggestedMax: 4, ticks: { precision: 0 }, grid: { color: "rgba(128, 128, 128, 0.2)" } },
      },
    },
  });
}

document.addEventListener("DOMContentLoaded", draw);
document.addEventListener("htmx:afterSettle", draw);
