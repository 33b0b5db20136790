// The scenes that grid.py packed: sums of differences along axes, put back into their form.
function numbersOf({ shape: [a, b], plain, differences, along, low, step, log }) {
  if (plain) return plain;
  const counts = [...differences];
  const points = counts.length / (a * b);
  for (const axis of along) {
    const stride = [b * points, points, 1][axis];
    const size = [a, b, points][axis];
    for (let i = 0; i < counts.length; i++)
      if (Math.floor(i / stride) % size) counts[i] += counts[i - stride];
  }
  const value = (count) => (log ? Math.exp(low + step * count) : low + step * count);
  return counts.map((count) => (count < 0 ? null : value(count)));
}

// A function from places among the stops of the dials to the scene there.
export function unpack({ form, columns }) {
  const numbers = columns.map(numbersOf);
  const text = JSON.stringify(form);
  return ([i, j = 0]) => {
    const take = ({ column, size }) => {
      const [a, b] = columns[column].shape;
      const from = ((a > 1 ? i : 0) * b + (b > 1 ? j : 0)) * (size || 1);
      return size ? numbers[column].slice(from, from + size) : numbers[column][from];
    };
    return JSON.parse(text, (_, node) => (node?.column === undefined ? node : take(node)));
  };
}
