#include "reckon/report/sections.h"

namespace reckon {
// Adds only what a reader can do without: looking at other moments than the peak, and reading values off lines. Names reach the page as
// text, never as markup.
const char* const kPageScript = R"js(
'use strict';
(() => {
  const json = id => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const commas = n => n.toLocaleString('en-US');
  const humanBytes = n => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
    let unit = 0, value = n;
    while (Math.abs(value) >= 1024 && unit < 5) value /= 1024, ++unit;
    if (unit === 0) return n + ' B';
    // Ties go to the even digit, as in the numbers that are on the page already.
    const hundredths = value * 100, even = 2 * Math.round(hundredths / 2);
    return (hundredths % 1 === 0.5 ? even / 100 : value).toFixed(2) + ' ' + units[unit];
  };
  const chip = category => make('span', 'chip c' + category);
  // Index of the last value <= x in a rising list; 0 if there is none.
  const lastUpTo = (list, x) => {
    let low = 0, high = list.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (list[middle] <= x) low = middle; else high = middle;
    }
    return low;
  };
  const nearest = (list, x) => {
    const i = lastUpTo(list, x);
    return i + 1 < list.length && list[i + 1] - x < x - list[i] ? i + 1 : i;
  };
  const shareAt = (element, event) => {
    const box = element.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const onPointer = (area, show) => {
    for (const type of ['pointerdown', 'pointermove']) area.addEventListener(type, event => show(shareAt(area, event)));
  };

  const memory = json('memory-data');
  if (memory) {
    const unit = 64, rest = 8;
    let at = memory.begin;
    const events = memory.event.map(step => at += step);
    const live = memory.live.map(steps => { let sum = 0; return steps.map(step => (sum += step) * unit); });
    const charts = [...document.querySelectorAll('.plot.memory .area')];
    const scrub = make('input');
    scrub.type = 'range';
    scrub.min = 0;
    scrub.max = events.length - 1;
    scrub.setAttribute('aria-label', 'Moment of the step');

    // Tensors that live at a sample, by name, largest first.
    const livingAt = sample => {
      const sums = new Map(), blocks = memory.blocks;
      for (let i = 0; i < blocks.length; i += 4)
        if (blocks[i + 2] <= sample && sample <= blocks[i + 2] + blocks[i + 3]) sums.set(blocks[i], (sums.get(blocks[i]) || 0) + blocks[i + 1] * unit);
      return [...sums].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    };
    const bytesCell = bytes => {
      const cell = make('td', 'n', humanBytes(bytes));
      cell.title = commas(bytes) + ' bytes';
      return cell;
    };
    const show = sample => {
      const total = live.reduce((sum, bytes) => sum + (bytes[sample] || 0), 0);
      const span = memory.end - memory.begin;
      const where = (sample === memory.peak ? 'At the peak: ' : '') + memory.phases[memory.phase[sample]] + ', after event ' + commas(events[sample] - memory.begin) + ' of ' + commas(span);
      const moment = document.getElementById('moment');
      const when = moment.querySelector('.when');
      when.replaceChildren(where + ': ', make('b', '', humanBytes(total)), ' live');
      moment.querySelector('ul').replaceChildren(...live.flatMap((bytes, category) => {
        if (!bytes[sample]) return [];
        const line = make('li');
        line.append(chip(category), memory.categories[category], ' ', make('b', '', humanBytes(bytes[sample])));
        return [line];
      }));
      let others = total;
      const rows = livingAt(sample).slice(0, rest).map(([name, bytes]) => {
        const [category, module, tensor] = memory.names[name], row = make('tr'), what = make('td', '', module + ' '), kind = make('td');
        what.append(make('i', '', tensor));
        kind.append(chip(category), memory.categories[category]);
        row.append(what, kind, bytesCell(bytes));
        others -= bytes;
        return row;
      });
      if (others > 0) {
        const row = make('tr', 'rest'), cell = make('td', '', 'all others');
        cell.colSpan = 2;
        row.append(cell, bytesCell(others));
        rows.push(row);
      }
      moment.querySelector('tbody').replaceChildren(...rows);
      for (const area of charts) {
        const cursor = area.querySelector('.cursor');
        cursor.hidden = false;
        cursor.style.left = (span ? 100 * (events[sample] - memory.begin) / span : 0) + '%';
      }
      scrub.value = sample;
      scrub.setAttribute('aria-valuetext', where + ': ' + humanBytes(total) + ' live');
    };
    for (const area of charts) onPointer(area, share => show(lastUpTo(events, memory.begin + share * (memory.end - memory.begin))));
    scrub.addEventListener('input', () => show(Number(scrub.value)));
    scrub.value = memory.peak;
    document.getElementById('scrub').append(scrub);
  }

  const run = json('run-data');
  for (const [id, series] of Object.entries(run || {})) {
    const area = document.querySelector('#' + id + ' .area');
    if (!area) continue;
    const steps = series.flatMap(line => line.x.filter((_, i) => line.y[i] !== null));
    const first = Math.min(...steps), last = Math.max(...steps);
    const cursor = area.querySelector('.cursor'), output = document.querySelector('output[data-of="' + id + '"]');
    onPointer(area, share => {
      const step = first + share * (last - first), line = series[0], i = nearest(line.x, step);
      const value = y => y === null ? 'not finite' : id === 'mfu' ? (100 * y).toFixed(1) + ' %' : y >= 1000 ? commas(Math.round(y)) : String(Number(y.toPrecision(4)));
      output.textContent = 'step ' + commas(line.x[i]) + ': ' + series.map(other => {
        const j = lastUpTo(other.x, line.x[i]);
        return other.x[j] <= line.x[i] ? other.name + ' ' + value(other.y[j]) : '';
      }).filter(Boolean).join(', ');
      cursor.hidden = false;
      cursor.style.left = (last > first ? 100 * (line.x[i] - first) / (last - first) : 50) + '%';
    });
  }
})();
)js";
}  // namespace reckon
