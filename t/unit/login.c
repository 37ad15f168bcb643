#include "relay/login.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static enum login_mechanism
offered(const char *text)
{
	return login_offered(text, strlen(text));
}

static void
test_offered(void **state)
{
	(void)state;
	assert_int_equal(offered("AUTH LOGIN PLAIN"), LOGIN_PLAIN);
	assert_int_equal(offered("auth plain"), LOGIN_PLAIN);
	assert_int_equal(offered("AUTH CRAM-MD5 LOGIN"), LOGIN_LOGIN);
	assert_int_equal(offered("AUTH=LOGIN"), LOGIN_LOGIN);
	assert_int_equal(offered("AUTH  PLAIN "), LOGIN_PLAIN);
	assert_int_equal(offered("AUTH"), LOGIN_NONE);
	assert_int_equal(offered("AUTH "), LOGIN_NONE);
	assert_int_equal(offered("AUTHPLAIN"), LOGIN_NONE);
	assert_int_equal(offered("AUTH PLAINER LOGI"), LOGIN_NONE);
	assert_int_equal(offered("SIZE 100"), LOGIN_NONE);
	assert_int_equal(login_offered("AUTH PLAIN", 9), LOGIN_NONE);
}

static void
test_lines(void **state)
{
	char line[LOGIN_LINE_SIZE], longest[LOGIN_SECRET_MAX + 1];

	(void)state;
	assert_int_equal(login_line(LOGIN_PLAIN, 0, "tim", "tanstaaftanstaaf", line), 39);
	assert_string_equal(line, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm"); /* RFC 4616 */
	assert_int_equal(login_line(LOGIN_PLAIN, 1, "tim", "tanstaaftanstaaf", line), 0);
	assert_int_equal(login_line(LOGIN_LOGIN, 0, "tim", "pass", line), 10);
	assert_string_equal(line, "AUTH LOGIN");
	assert_int_equal(login_line(LOGIN_LOGIN, 1, "tim", "pass", line), 4);
	assert_string_equal(line, "dGlt");
	assert_int_equal(login_line(LOGIN_LOGIN, 2, "tim", "pass", line), 8);
	assert_string_equal(line, "cGFzcw==");
	assert_int_equal(login_line(LOGIN_LOGIN, 3, "tim", "pass", line), 0);
	memset(longest, 'x', LOGIN_SECRET_MAX);
	longest[LOGIN_SECRET_MAX] = '\0';
	assert_true(login_line(LOGIN_PLAIN, 0, longest, longest, line) < LOGIN_LINE_SIZE);
	assert_true(login_line(LOGIN_LOGIN, 2, longest, longest, line) < LOGIN_LINE_SIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_offered),
	    cmocka_unit_test(test_lines),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
