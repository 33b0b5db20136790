// The scenes that grid.py packed: sums of differences along axes, put back into their form.
function numbersOf({ shape, plain, differences, along, low, step, log }) {
  if (plain) return plain;
  const counts = [...differences];
  const sizes = [...shape, counts.length / shape.reduce((all, size) => all * size, 1)];
  for (const axis of along) {
    const stride = sizes.slice(axis + 1).reduce((all, size) => all * size, 1);
    for (let i = 0; i < counts.length; i++)
      if (Math.floor(i / stride) % sizes[axis]) counts[i] += counts[i - stride];
  }
  const value = (count) => (log ? Math.exp(low + step * count) : low + step * count);
  return counts.map((count) => (count < 0 ? null : value(count)));
}

// A function from places among the stops of the dials to the scene there.
export function unpack({ form, columns }) {
  const numbers = columns.map(numbersOf);
  const text = JSON.stringify(form);
  return (places) => {
    const take = ({ column, size }) => {
      const { shape } = columns[column];
      const from = shape.reduce((at, stops, dial) => at * stops + (stops > 1 ? places[dial] : 0), 0) * (size || 1);
      return size ? numbers[column].slice(from, from + size) : numbers[column][from];
    };
    return JSON.parse(text, (_, node) => (node?.column === undefined ? node : take(node)));
  };
}
