# A client that knows SMTPUTF8 and is left to itself: utf8.py port user password recipient subject
import smtplib
import ssl
import sys
from email.message import EmailMessage

port, user, password, to, subject = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
message = EmailMessage()
message['From'] = user
message['To'] = to
message['Subject'] = subject
message.set_content('body\n')
with smtplib.SMTP('127.0.0.1', int(port)) as smtp:
    smtp.starttls(context=context)
    smtp.login(user, password)
    smtp.send_message(message)
