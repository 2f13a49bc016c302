/* ports_service.h - a Service as the API server gives it: which of its ports are ours, and whose the others are
 * Shape:   spec.ports + metadata.managedFields -> struct ports_service; a refusal's Status -> the ports that it names
 * Units:   ports in host order
 * Owner:   ports_service_parse ... ports_service_done
 * Errors:  false: no such Service in it; the output is untouched
 * Limits:  none of its own: an object of the API server has at most 1.5 MB
 * Threads: any; pure
 * Source:  structured-merge-diff FieldsV1; apiserver fieldmanager conflicts; core/v1 Service */
#ifndef CONTROLLER_PORTS_SERVICE_H
#define CONTROLLER_PORTS_SERVICE_H

#include "ports.h"

#define PORTS_NAME_BYTES 16

enum ports_field {
    PORTS_FIELD_NAME = 0,
    PORTS_FIELD_PORT,
    PORTS_FIELD_PROTOCOL,
    PORTS_FIELD_TARGET,
    PORTS_FIELDS
};

struct ports_item {
    uint16_t port;
    bool tcp;
    char *name;
    uint16_t named; /* 10020 where the name is "p-10020", else 0 */
    int target;     /* -1: a name */
    bool ours;      /* PORTS_MANAGER applied it */
    char *other;    /* a manager that has the entry as such, so that it stays without us; NULL: none */
    char *owners[PORTS_FIELDS]; /* who else has this field of it; NULL: nobody */
};

struct ports_service {
    char *uid, *version; /* version NULL: there is no Service */
    struct ports_item *items;
    size_t count;
    size_t ours, foreign; /* items with our mark; items that would stay without us */
};

bool ports_service_parse(json_t *object, const char *ns, const char *name, struct ports_service *out);
/* All zero afterwards. */
void ports_service_done(struct ports_service *s);
/* `why` is the caller's: set when the state is TAKEN, or when somebody edited our entry: an unforced apply of it would
 * clash, but one without it takes it away, and then the port is free. */
enum ports_state ports_service_judge(const struct ports_service *s, uint16_t port, bool *edited, char **why);
/* The ports that a 409 or 422 names. */
void ports_service_clashes(json_t *status, void (*clash)(void *arg, uint16_t port, const char *message),
                           void *arg);
/* "p-10020" */
void ports_name(char out[PORTS_NAME_BYTES], uint16_t port);

#endif
