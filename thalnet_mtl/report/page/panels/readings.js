"use strict";
// A heat map of readings: changes in two colors around zero, or levels in one where no start is known.

panels.readings = ({readers, sources, sets}, view) => {
  return ofSets(sets, view.state, (set) => {
    const limit = set.change ? set.limit : Math.max(...set.end.flat());
    const values = set.change ?? set.end;
    const cells = readers.flatMap((reader, row) => sources.map((source, column) => ({
      row, column, value: values[row][column], framed: set.beyond?.[row][column],
      words: values[row][column] === null ? `${reader} does not read ${source}` : words(set, row, column),
    })));
    const format = set.change ? signedTo(limit) : (value) => round(value, 2);
    const map = heatMap({
      rows: readers, columns: sources, cells, limit, view, format, diverging: Boolean(set.change),
    });
    return set.change ? [colorKey(limit, format), map] : [map];
  });

  function words(set, row, column) {
    const title = `${readers[row]} reads ${sources[column]}`;
    if (!set.change) return `${title}\nmean |R| ${set.end[row][column]}`;
    return `${title}\n|R| from ${set.start[row][column]} to ${set.end[row][column]}\nchange ${signed(set.change[row][column])}`
      + `\nmean change of ${readers[row]} ${signed(set.common[row])}, standard error ${set.error[row][column]}`;
  }
};
