// KaTeX comes with the site (made/katex) and is taken where a page has formulas; without it they stay readable as TeX.
(function () {
  var home = new URL("../made/katex/", document.currentScript.src);
  function draw() {
    document.querySelectorAll(".arithmatex").forEach(function (place) {
      var text = place.textContent.trim();
      var inner = text.replace(/^\\[\[(]/, "").replace(/\\[\])]$/, "");
      window.katex.render(inner, place, { displayMode: text.startsWith("\\["), throwOnError: false });
    });
    reachable();
    document.fonts.ready.then(reachable);
  }
  // What scrolls sideways can be scrolled with the keyboard too.
  function reachable() {
    document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre, div.arithmatex").forEach(function (region) {
      if (region.scrollWidth <= region.clientWidth || region.hasAttribute("tabindex")) return;
      region.tabIndex = 0;
      region.setAttribute("role", "region");
      var what = region.tagName === "PRE" ? "text" : region.classList.contains("arithmatex") ? "formula" : "table";
      region.setAttribute("aria-label", what + " that scrolls sideways");
    });
  }
  // Pictures with ink for a dark ground, where the page is dark (minialex.site.dark makes them).
  function coloured() {
    var dark = document.body.dataset.mdColorScheme === "slate";
    document.querySelectorAll('.md-typeset img[src$=".png"]').forEach(function (picture) {
      var wanted = picture.getAttribute("src").replace(/(\.dark)?\.png$/, dark ? ".dark.png" : ".png");
      if (picture.getAttribute("src") !== wanted) picture.setAttribute("src", wanted);
    });
  }
  function begin() {
    coloured();
    new MutationObserver(coloured).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
    // material's search is a dialog without a name: give it one for those who hear the page
    var search = document.querySelector(".md-search[role=dialog]");
    if (search && !search.hasAttribute("aria-label")) search.setAttribute("aria-label", "Search");
    reachable();
    window.addEventListener("load", reachable); // material wraps tables late
    document.addEventListener("toggle", reachable, true); // what was in a closed box had no width
    if (!document.querySelector(".arithmatex")) return;
    var style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("katex.min.css", home);
    document.head.append(style);
    var script = document.createElement("script");
    script.src = new URL("katex.min.js", home);
    script.onload = draw;
    document.head.append(script);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
