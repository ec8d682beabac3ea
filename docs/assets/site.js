// What Material for MkDocs leaves out for people who use a keyboard or a screen reader: names for the
// search and for the copy buttons of each listing, and a stop at what scrolls sideways.
"use strict";
const SCROLLS = ".md-typeset__scrollwrap, .output, pre > code";

function complete() {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((nav, number) => {
    nav.setAttribute("aria-label", `Listing ${number + 1}`);
  });
  for (const element of document.querySelectorAll(SCROLLS)) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
  }
}

complete();
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", complete);
