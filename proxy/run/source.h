/* source.h - the spec file as it was read last: its documents, judged one by one, and the files that they name
 * Shape:   path -> bytes -> candidates (plan.h) and problems
 *              SOURCE_SAME      neither the file nor those that it names hold anything new
 *              SOURCE_NEW       candidates and problems are those of the file
 *              SOURCE_REFUSED   the file cannot be judged: problems say why, candidates are those of the last good one
 * Units:   revisions are the SHA-256 of the file, in hex
 * Owner:   the caller's struct, from {.path} to source_done; candidates and problems live until the next reading
 * Errors:  in problems; memory: the process ends with a line
 * Limits:  those of the spec
 * Threads: the master's; blocks on the disk
 * Source:  design.md 2.6; bars S49, S54 */
#ifndef PROXY_RUN_SOURCE_H
#define PROXY_RUN_SOURCE_H

#include "run/plan.h"

enum source_result { SOURCE_SAME = 0, SOURCE_NEW, SOURCE_REFUSED };

struct source {
    const char *path;
    struct candidate *candidates;
    size_t candidate_count;
    struct spec_cert *certs; /* what is known of them already */
    struct spec_problems problems;
    char **files; /* that the spec names */
    size_t file_count;
    char revision[STATUS_HEX_BYTES];      /* of the last good reading */
    char seen_revision[STATUS_HEX_BYTES]; /* of the last reading; "": there were no bytes */

    bool read_once; /* a good file has been read */
    ino_t inode;    /* its inode, and whether it held anything */
    bool had_bytes;
    bool
        input_known; /* `input` tells what the last reading was made from: the file, and the files that it names */
    uint8_t input[VERSION_DIGEST_BYTES];
};

enum source_result source_read(struct source *s);
void source_done(struct source *s);

#endif
