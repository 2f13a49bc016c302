#include "mounts.h"

#include "base/need.h"
#include "kube/kube_path.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"tls.crt", "tls.key", "ca.crt"};
#define KEYS (sizeof keys / sizeof *keys)

/* Adds the files of each Secret; returns how many there are then. */
static size_t add_secrets(DIR *dir, const char *path, char **paths, size_t count, bool *cut)
{
    const struct dirent *entry;
    size_t secrets = 0;

    while ((entry = readdir(dir))) {
        if (!kube_path_name_ok(entry->d_name))
            continue; /* ".", "..", what is no Secret's name */
        *cut = secrets == MOUNTS_MAX;
        if (*cut)
            break;
        secrets++;
        for (size_t i = 0; i < KEYS; i++)
            paths[count++] = need_printf("%s/%s/%s", path, entry->d_name, keys[i]);
    }
    return count;
}

int mounts_watch(struct watch *w, const char *labels, const char *secrets_dir, struct err *err)
{
    char **paths = need(calloc(MOUNTS_MAX * KEYS + 2, sizeof *paths));
    DIR *dir = opendir(secrets_dir);
    size_t count = 0;
    bool cut = false;
    int failed = 0;

    paths[count++] = need(strdup(labels));
    paths[count++] = need(strdup(secrets_dir));
    if (dir)
        count = add_secrets(dir, secrets_dir, paths, count, &cut);
    else if (errno != ENOENT)
        failed = err_set(err, ERR_IO, "%s: %s", secrets_dir, strerror(errno));
    if (cut)
        failed = err_set(err, ERR_LIMIT, "%s: more than %d Secrets", secrets_dir, MOUNTS_MAX);
    if (!failed)
        failed = watch_set(w, (const char *const *)paths, count, err);
    if (dir)
        closedir(dir);
    while (count)
        free(paths[--count]);
    free(paths);
    return failed;
}
