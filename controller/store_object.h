/* store_object.h - JSON of Secrets, Services, EndpointSlices and ReferenceGrants -> what the store keeps of them
 * Shape:   object -> struct; fields that make no sense are left out, those without which the rest means nothing are `problem`
 * Owner:   the caller's, until the matching _free
 * Errors:  none: the names were checked by the caller
 * Limits:  STORE_MAX_ENDPOINTS, SPEC_MAX_CA_BYTES a key of a Secret, STORE_MAX_RULES from and to of a grant
 * Threads: any; pure
 * Source:  core/v1 Secret and Service, discovery.k8s.io/v1 EndpointSlice, gateway.networking.k8s.io ReferenceGrant */
#ifndef CONTROLLER_STORE_OBJECT_H
#define CONTROLLER_STORE_OBJECT_H

#include "store.h"

#define STORE_MAX_RULES 64

/* `ns` and `name` are set by the caller; the rest is filled. */
void store_secret_take(struct store_secret *s, json_t *object);
void store_service_take(struct store_service *s, json_t *object);
void store_slice_take(struct store_slice *s, json_t *object);
void store_grant_take(struct store_grant *g, json_t *object);

void store_secret_free(struct store_secret *s);
void store_service_free(struct store_service *s);
void store_slice_free(struct store_slice *s);
void store_grant_free(struct store_grant *g);

bool store_secret_equal(const struct store_secret *a, const struct store_secret *b);
bool store_service_equal(const struct store_service *a, const struct store_service *b);
bool store_slice_equal(const struct store_slice *a, const struct store_slice *b);
bool store_grant_equal(const struct store_grant *a, const struct store_grant *b);

#endif
