// Drawings and tables that the engine made, with their captions: HTML and SVG in which every text
// is escaped already.

export default function show({ data, parentElement }) {
  const place = parentElement.querySelector(".drawings");
  const html = data.drawings.map(({ drawing, caption }) =>
    `<figure><div class="cs-study-wide">${drawing}</div>`
    + `<figcaption>${caption}</figcaption></figure>`,
  ).join("");
  if (place.innerHTML !== html) place.innerHTML = html;
}
