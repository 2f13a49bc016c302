/* page.h - the files of the live page, as CMake put them into the program
 * Shape:   proxy/admin/page/page.{html,css,js,svg} -> bytes
 * Owner:   the program
 * Threads: any */
#ifndef PROXY_ADMIN_PAGE_H
#define PROXY_ADMIN_PAGE_H

#include <stddef.h>

extern const unsigned char page_html[], page_css[], page_js[], page_svg[];
extern const size_t page_html_len, page_css_len, page_js_len, page_svg_len;

#endif
