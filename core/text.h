/* Text that a stranger chose: which of it may be kept, shown and sent on. ASCII and UTF-8 (RFC
 * 3629). */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many octets the printable character at the start of text has, which holds len of them; 0 when
 * there is none. Printable is ASCII from space to tilde, and whatever well-formed UTF-8 shows where
 * it stands: no control, no line or word separator, nothing that turns the direction of what
 * follows. */
size_t text_char(const char *text, size_t len);
/* The code point of a character that text_char found to have n octets. */
uint32_t text_code(const char *text, size_t n);
bool text_is_printable(const char *text, size_t len);
bool text_is_ascii(const char *text);
/* No octet over 127 among them; others that ASCII knows may be any. */
bool text_is_7bit(const void *octets, size_t len);

#endif
