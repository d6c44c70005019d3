// What is wrong with a page, as lists of the elements at fault. Each function is called by itself.
(() => {
  const describe = e => `${e.tagName.toLowerCase()}${e.id && '#' + e.id}`
    + `.${e.getAttribute('class')}: ${e.textContent.trim().slice(0, 40)}`;
  const distinct = list => [...new Set(list)].slice(0, 20);
  const all = selector => [...document.body.querySelectorAll(selector)];
  const shown = e => e.checkVisibility({visibilityProperty: true});

  // Colors are read back from a canvas, as styles may give them in any color space.
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const paint = canvas.getContext('2d', {willReadFrequently: true});
  const cache = new Map();
  const rgba = color => {
    if (!cache.has(color)) {
      paint.clearRect(0, 0, 1, 1);
      paint.fillStyle = color;
      paint.fillRect(0, 0, 1, 1);
      cache.set(color, [...paint.getImageData(0, 0, 1, 1).data].map(v => v / 255));
    }
    return [...cache.get(color)];
  };
  const over = (top, under) =>
    under.map((v, k) => top[k] * top[3] + v * (1 - top[3]));
  const luminance = color => {
    const [r, g, b] = color.map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const opacity = e => e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1;
  const behind = e => {
    if (!e) return rgba('Canvas').slice(0, 3);
    const color = rgba(getComputedStyle(e).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, behind(e.parentElement));
  };
  // In a drawing: the shapes that come before a text and lie behind its middle.
  const drawnBehind = text => {
    const box = text.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    let color = behind(text.ownerSVGElement);
    for (const shape of text.ownerSVGElement.querySelectorAll('rect, circle, ellipse, polygon')) {
      if (shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_PRECEDING) break;
      const b = shape.getBoundingClientRect(), style = getComputedStyle(shape);
      const covers = b.left <= x && x <= b.right && b.top <= y && y <= b.bottom;
      if (!covers || style.fill === 'none' || !shown(shape) || shape.closest('defs')) continue;
      const fill = rgba(style.fill);
      fill[3] *= style.fillOpacity * opacity(shape);
      color = over(fill, color);
    }
    return color;
  };

  const CONTROLS = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';

  return {
    wider() {
      const root = document.documentElement;
      if (root.scrollWidth <= root.clientWidth) return [];
      const scrolls = e =>
        e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
      return all('*')
        .filter(e => e.getBoundingClientRect().left + e.scrollWidth > root.clientWidth + 1)
        .filter(e => !scrolls(e.parentElement))
        .map(describe).slice(0, 10).concat('the page');
    },

    faint() {
      const found = [];
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) {
        const e = texts.currentNode.parentElement;
        const silent = 'script, style, title, desc, option, noscript, [inert], :disabled';
        if (!texts.currentNode.data.trim() || e.closest(silent) || !shown(e)) continue;
        const style = getComputedStyle(e), drawn = e instanceof SVGElement;
        const under = drawn ? drawnBehind(e) : behind(e);
        const color = rgba(drawn ? style.fill : style.color);
        color[3] *= opacity(e);
        const [a, b] = [luminance(over(color, under)), luminance(under)];
        const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        if (contrast < (large ? 3 : 4.5)) found.push(`${contrast.toFixed(2)} ${describe(e)}`);
      }
      return distinct(found);
    },

    nameless() {
      const named = e => ['aria-label', 'alt', 'title'].some(a => e.getAttribute(a)?.trim())
        || (e.getAttribute('aria-labelledby') || '').split(/\s+/)
          .some(id => id && document.getElementById(id)?.textContent.trim())
        || e.querySelector(':scope > title, :scope > figcaption')?.textContent.trim()
        || [...(e.labels || [])].some(label => label.textContent.trim())
        || e.matches('a, button, summary, [role=button]') && e.textContent.trim();
      const graphics = 'figure, svg, img, canvas, [role=img]';
      return all(`${graphics}, ${CONTROLS}`)
        .filter(e => shown(e) && !e.closest('[aria-hidden=true]') && !named(e))
        .filter(e => !e.parentElement.closest('[role=img]'))
        .map(describe);
    },

    controls: () => all(CONTROLS).filter(e => shown(e) && !e.disabled).map(describe),

    focused() {
      const e = document.activeElement, style = getComputedStyle(e);
      const marked = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
      return e === document.body ? 'body' : describe(e) + (marked ? '' : ' without a mark');
    },

    cut: () => all('*')
      .filter(e => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
      .filter(e => /auto|scroll|hidden|clip/.test(getComputedStyle(e).overflow))
      .concat(all('details:not([open], .wide) > :not(summary)').filter(e => !shown(e)))
      .map(describe),

    theme() {
      const style = getComputedStyle(document.body);
      const [paper, ink] = [style.backgroundColor, style.color].map(c => luminance(rgba(c)));
      return paper > ink ? 'light' : 'dark';
    },
  };
})()
