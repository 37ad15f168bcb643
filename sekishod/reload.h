/* Reloading the configuration, and watching the certificate's last days. */
#ifndef SEKISHOD_RELOAD_H
#define SEKISHOD_RELOAD_H

#include "sekishod/children.h"

struct reload;

/* The file's name and children are borrowed. */
struct reload *reload_new(struct loop *loop, const char *file, struct children *children);
void reload_free(struct reload *reload);
/* Reads the file and brings it into force everywhere, or nowhere; one line in the log says which.
 * While one is under way, another follows it. */
void reload_begin(struct reload *reload);
/* The same for somebody who gets the answer; while one is under way, that is a refusal. */
void reload_ask(struct reload *reload, struct children_asker asker);

#endif
