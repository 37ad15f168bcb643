#include <stdio.h>
#include <string.h>

#include "core/text.h"
#include "t/unit/tap.h"

static const struct {
	const char *text;
	size_t len;
} chars[] = {
    /* ASCII */
    {"", 0},
    {" ", 1},
    {"~", 1},
    {"a", 1},
    {"\t", 0},
    {"\r", 0},
    {"\n", 0},
    {"\x1b", 0},
    {"\x01", 0},
    {"\x7f", 0},
    /* the first and the last of each length (RFC 3629) */
    {"\xc2\xa1", 2},
    {"\xc3\xb6", 2},
    {"\xdf\xbf", 2},
    {"\xe0\xa0\x80", 3},
    {"\xe9\x96\xa2", 3},
    {"\xed\x9f\xbb", 3},
    {"\xee\x80\x80", 3},
    {"\xef\xbf\xbd", 3},
    {"\xf0\x90\x80\x80", 4},
    {"\xf0\x9f\x92\xa9", 4},
    {"\xf3\xa0\x84\x80", 4}, /* ideographic variations */
    {"\xf4\x8f\xbf\xbd", 4},
    {"\xe2\x80\x8c", 3}, /* joiners */
    {"\xe2\x80\x8d", 3},
    {"e\xcc\x81", 1},
    {"\xcc\x81", 2},
    /* overlong */
    {"\xc0\x80", 0},
    {"\xc0\xae", 0},
    {"\xc1\xbf", 0},
    {"\xe0\x80\xaf", 0},
    {"\xe0\x9f\xbf", 0},
    {"\xf0\x80\x80\xaf", 0},
    {"\xf0\x8f\xbf\xbf", 0},
    {"\xf8\x88\x80\x80\x80", 0},
    {"\xfc\x84\x80\x80\x80\x80", 0},
    /* surrogates, beyond the end, no characters */
    {"\xed\xa0\x80", 0},
    {"\xed\xbf\xbf", 0},
    {"\xed\xa0\xbd\xed\xb2\xa9", 0},
    {"\xf4\x90\x80\x80", 0},
    {"\xf5\x80\x80\x80", 0},
    {"\xff", 0},
    {"\xfe", 0},
    {"\xef\xb7\x90", 0},
    {"\xef\xbf\xbe", 0},
    {"\xef\xbf\xbf", 0},
    {"\xf0\x9f\xbf\xbe", 0},
    {"\xf4\x8f\xbf\xbf", 0},
    /* cut, or no beginning */
    {"\xc3", 0},
    {"\xe9\x96", 0},
    {"\xf0\x9f\x92", 0},
    {"\xc3(", 0},
    {"\xe9(\xa2", 0},
    {"\xe9\x96(", 0},
    {"\xf0\x9f\x92(", 0},
    {"\x80", 0},
    {"\xbf", 0},
    /* controls, separators, direction */
    {"\xc2\x80", 0},
    {"\xc2\x85", 0},
    {"\xc2\x9b", 0}, /* CSI */
    {"\xc2\x9f", 0},
    {"\xc2\xa0", 0},
    {"\xc2\xad", 0},
    {"\xd8\x9c", 0},
    {"\xe2\x80\x82", 0},
    {"\xe2\x80\x8b", 0},
    {"\xe2\x80\x8e", 0},
    {"\xe2\x80\xa8", 0},
    {"\xe2\x80\xa9", 0},
    {"\xe2\x80\xaa", 0},
    {"\xe2\x80\xae", 0},
    {"\xe2\x81\xa0", 0},
    {"\xe2\x81\xa6", 0},
    {"\xe3\x80\x80", 0},
    {"\xef\xbb\xbf", 0},
    {"\xf3\xa0\x80\xa1", 0},
};

int
main(void)
{
	for (size_t i = 0; i < sizeof chars / sizeof *chars; i++)
		ok_of(text_char(chars[i].text, strlen(chars[i].text)) == chars[i].len,
		      "a character", chars[i].text);
	ok_of(text_char("\xe9\x96\xa2", 2) == 0 && text_char("\xe9\x96\xa2x", 4) == 3,
	      "looks no further than it may", "");
	ok_of(text_code("a", 1) == 'a' && text_code("\xc3\xb6", 2) == 0xf6 &&
	          text_code("\xe9\x96\xa2", 3) == 0x95a2 &&
	          text_code("\xf0\x9f\x92\xa9", 4) == 0x1f4a9,
	      "code points", "");
	ok_of(text_is_printable("", 0) && text_is_printable("j\xc3\xb6rg", 5) &&
	          !text_is_printable("j\xc3\xb6rg", 2) && !text_is_printable("a\0b", 3),
	      "text", "");
	ok_of(text_is_ascii("") && text_is_ascii("abc") && !text_is_ascii("ab\xc3\xb6"), "ASCII",
	      "");
	for (size_t i = 0; i < 20; i++) {
		char octets[20] = "";
		octets[i] = (char)0x80;
		ok_of(!text_is_7bit(octets, sizeof octets) && text_is_7bit(octets, i),
		      "an octet over 127 is found wherever it stands", "");
	}
	return tap_end();
}
