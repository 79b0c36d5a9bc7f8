// each specification is drawn where its name is; expressions are interpreted, not evaluated as code
const specs = JSON.parse(document.getElementById("specs").textContent);
const drawn = Object.entries(specs).map(([name, spec]) =>
  vegaEmbed(document.getElementById(name), spec, { ast: true, renderer: "svg", actions: false }).catch((error) => {
    document.getElementById(name).textContent = "This chart cannot be drawn: " + error.message;
    document.body.dataset.failed = name;
  }),
);
Promise.all(drawn).then(() => {
  document.body.dataset.drawn = drawn.length;
});
