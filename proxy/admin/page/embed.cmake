# cmake -DOUT=page.c -P embed.cmake: the page's files as C arrays
set(text "#include \"admin/page.h\"\n")
foreach(kind html css js svg)
  file(READ ${CMAKE_CURRENT_LIST_DIR}/page.${kind} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND text "const unsigned char page_${kind}[] = {${bytes}};\nconst size_t page_${kind}_len = sizeof page_${kind};\n")
endforeach()
file(WRITE ${OUT} "${text}")
