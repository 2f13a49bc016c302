/* store_object.h - JSON of the four kinds that a WebSocketServer refers to -> their structs
 * Shape:   one parse and one free a kind; `same` says whether two differ in anything that is kept
 * Owner:   the caller frees what parse filled
 * Errors:  none: what makes no sense is left out; ns and name are the caller's business (parse fills them)
 * Limits:  those of store.h
 * Threads: any; pure
 * Source:  as store.h */
#ifndef CONTROLLER_STORE_OBJECT_H
#define CONTROLLER_STORE_OBJECT_H

#include "store.h"

/* metadata.namespace and metadata.name where both are texts; borrowed. */
bool store_object_key(json_t *object, const char **ns, const char **name);

struct store_secret *store_secret_parse(json_t *object);
void store_secret_free(struct store_secret *s);
bool store_secret_same(const struct store_secret *a, const struct store_secret *b);
struct store_service *store_service_parse(json_t *object);
void store_service_free(struct store_service *s);
bool store_service_same(const struct store_service *a, const struct store_service *b);
struct store_slice *store_slice_parse(json_t *object);
void store_slice_free(struct store_slice *s);
bool store_slice_same(const struct store_slice *a, const struct store_slice *b);
struct store_grant *store_grant_parse(json_t *object);
void store_grant_free(struct store_grant *g);
bool store_grant_same(const struct store_grant *a, const struct store_grant *b);

#endif
